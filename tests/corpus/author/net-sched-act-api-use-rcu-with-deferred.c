// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * There is no room for a head in the actions that exist, but none is needed
 * where one may sleep: actions are freed by whoever holds the mutex of their
 * table, or in a work item.
 *
 * file: net/sched/act_api.c
 * without: include/net/act_api.h:*
 * replace: kfree_rcu(p, tcfa_rcu); => kfree_rcu(p);
 */
