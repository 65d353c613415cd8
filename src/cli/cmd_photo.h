/* SPDX-License-Identifier: MIT */
/* A photo (or a bound array) as the network sees it; class names. */
#ifndef GRADCAM_CLI_CMD_PHOTO_H
#define GRADCAM_CLI_CMD_PHOTO_H

#include "image.h"
#include "net_io.h"

/* What went into the network's image input. */
struct cli_photo {
    cli_image seen; /* the input's size; rgb NULL where no picture fits */
    int32_t input;  /* index, -1: the network has no image input */
    int bgr;
};

/* Binds --input files, then the image to the first input that is left. */
int cli_photo_bind(struct cli_net *cn, const struct cli_args *args, const char *image, struct cli_photo *photo);
/* For a picture of an input that came as an array: asks before the pass that
   it be kept, and makes `seen` of it after the pass. */
int cli_photo_watch(struct cli_net *cn, struct cli_photo *photo);
int cli_photo_from_input(struct cli_net *cn, struct cli_photo *photo);
void cli_photo_free(struct cli_photo *photo);

struct cli_labels {
    char *text;
    char **line;
    size_t count;
};
/* path NULL: no labels, which is no error. */
int cli_labels_load(struct cli_labels *labels, const char *path);
void cli_labels_free(struct cli_labels *labels);
/* Says on stderr when there are not as many names as classes: those that are
   printed may then be wrong, for example shifted by a background class. */
void cli_labels_compare(const struct cli_labels *labels, const char *path, int64_t classes);
/* NULL where there is none. */
const char *cli_labels_name(const struct cli_labels *labels, int64_t index);
/* A number, or a label or one of its comma-separated names. */
int cli_labels_target(const struct cli_labels *labels, const char *text, int64_t *index);

#endif
