/* SPDX-License-Identifier: MIT */
#ifndef GC_EXPLAIN_CAM_PATTERN_H
#define GC_EXPLAIN_CAM_PATTERN_H

#include "gradcam/gradcam.h"

/* GRADCAM_OK when `layer` reaches `output` through global average pooling and
   at most one linear layer, else GRADCAM_E_UNSUPPORTED naming the node that
   breaks the pattern.  The run must be prepared. */
gc_status gc_cam_pattern(gc_run *run, const char *layer, const char *output, gc_error *err);

#endif
