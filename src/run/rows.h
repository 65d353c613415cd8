/* SPDX-License-Identifier: MIT */
#ifndef GC_RUN_ROWS_H
#define GC_RUN_ROWS_H

#include "run/plan.h"

/* Where all that is read of a value are some of its rows (a classifier's class token,
   the last word), the steps in front that work row by row make only those: of a
   transformer's last block one row of the queries, of the residual sums and of the
   products behind them.  Values that somebody observes stay whole.  The numbers are
   those of the whole, bit by bit. */
gc_status gc_plan_rows(gc_plan *plan, gc_error *err);

#endif
