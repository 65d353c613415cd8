/* SPDX-License-Identifier: MIT */
/* Files that are written whole or not at all. */
#ifndef GRADCAM_CLI_OUT_FILE_H
#define GRADCAM_CLI_OUT_FILE_H

#include <stdio.h>

/* Several may be open, closed in the opposite order; the host keeps path. */
typedef struct cli_out {
    FILE *f; /* NULL: not opened, errno says why */
    const char *path;
    struct cli_out *outer;
    int holds, held; /* holds: makes interrupts wait; held: this or an outer one does */
} cli_out;

/* Opens for writing. Until it is closed, interrupts wait (not for a pipe or a
 * device); the close that finds one removes what is open and lets it end the
 * process. Returns 0, or nonzero with errno set. */
int cli_out_open(cli_out *o, const char *path);
/* Returns 0 when all was written. Else, or if `bad`, nonzero, and the file is
 * removed, unless it is a device, a pipe or a link: those are not ours. */
int cli_out_close(cli_out *o, int bad);

#endif
