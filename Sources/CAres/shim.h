/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BLOCKTREE_CARES_SHIM_H
#define BLOCKTREE_CARES_SHIM_H

/* Later versions of c-ares prefer other functions; those that are used here are in all of them. */
#define CARES_NO_DEPRECATED

#include <ares.h>
#include <netinet/in.h>
#include <sys/eventfd.h>

#endif
