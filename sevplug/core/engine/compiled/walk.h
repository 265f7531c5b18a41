/* The page walk of sevplug/core/paging.py, compiled: the same function of memory, control registers and an address.
 *
 * paging.py is the specification.  Both are held equal by tests; what is said there is not said again here.
 */
#ifndef SEVPLUG_WALK_H
#define SEVPLUG_WALK_H

#include <stdbool.h>
#include <stdint.h>

/* Kinds of access (sevplug.core.vcpu.Access). */
enum { READ = 1, WRITE = 2, FETCH = 4, USER = 16 };

/* Bits of a result beside the page's address. */
enum { READABLE = 1, WRITABLE = 2, EXECUTABLE = 4, GLOBAL = 8, UNLIKE_DATA = 16 };
#define PRIVATE (INT64_C(1) << 62)
#define PAGE_ADDRESS UINT64_C(0x000ffffffffff000)
#define PAGE_SHIFT 12

/* The walk needs memory that is not at hand: Python's has to do it, from its start. */
#define RARE INT64_MIN

/* States of a page (sevplug/core/views.py). */
enum { SHARED = 0, PRIVATE_FORM = 1, UNTOUCHED = 2, UNWRITTEN = 8 };

/* RAM from `gpa` on, and one item a page of what is known of it. */
struct range {
    uint64_t gpa, size;
    uint8_t *bytes;
    uint8_t *states;      /* NULL where memory has but one form */
    uint64_t *linear;     /* where the CPU used a page when it last came for it; as `states` */
    uint8_t *code;        /* 1: it was fetched from, and may be at any time */
    uint64_t *handed_out; /* the flush that came last before it was handed out last */
    uint64_t *executed;   /* where it may be cached executable, and where for data: aliases.py */
    uint64_t *stored;
};

#define RANGES 2

struct walker {
    struct range ranges[RANGES];
    uint64_t mask;     /* the bit that marks private addresses, or 0 */
    uint64_t too_wide; /* address bits that no physical address has, the mask's among them */
};

struct controls {
    uint64_t cr0, cr3, cr4, efer;
    bool ac; /* RFLAGS.AC */
};

/* The range that holds `gpa`, or NULL. */
const struct range *sevplug_find(const struct walker *walker, uint64_t gpa);

/* As PageWalker.walk, or RARE. */
int64_t sevplug_translate(const struct walker *walker, uint64_t address, uint32_t access, const struct controls *controls);

#endif
