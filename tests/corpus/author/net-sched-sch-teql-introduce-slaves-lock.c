// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One lock for all masters in place of one in each, which there is no room
 * for.
 *
 * file: net/sched/sch_teql.c
 * before: struct teql_master {
 * without: net/sched/sch_teql.c:-~slaves_lock
 * without: net/sched/sch_teql.c:teql_master_setup
 * replace: &dat->m->slaves_lock => &teql_slaves_lock
 * replace: &master->slaves_lock => &teql_slaves_lock
 * replace: &m->slaves_lock => &teql_slaves_lock
 */
static DEFINE_SPINLOCK(teql_slaves_lock);
