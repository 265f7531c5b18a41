#include "walk.h"

#include <stddef.h>

#define CR0_WP (UINT64_C(1) << 16)
#define CR0_PG (UINT64_C(1) << 31)
#define CR4_PSE (UINT64_C(1) << 4)
#define CR4_PAE (UINT64_C(1) << 5)
#define CR4_PGE (UINT64_C(1) << 7)
#define CR4_SMEP (UINT64_C(1) << 20)
#define CR4_SMAP (UINT64_C(1) << 21)
#define EFER_LMA (UINT64_C(1) << 10)
#define EFER_NXE (UINT64_C(1) << 11)

/* Bits of an entry. */
#define P UINT64_C(1)
#define RW UINT64_C(2)
#define US UINT64_C(4)
#define A (UINT64_C(1) << 5)
#define D (UINT64_C(1) << 6)
#define PS (UINT64_C(1) << 7)
#define G (UINT64_C(1) << 8)
#define NX (UINT64_C(1) << 63)
/* Reserved in PAE's entries, free in long mode's. */
#define ABOVE_ADDRESS UINT64_C(0x7ff0000000000000)
/* Reserved in PAE's first level: R/W, U/S, A, D, PS, G. */
#define NO_RIGHTS UINT64_C(0x1e6)

/* Bits of a page fault's error code. */
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16 };

/* One walk on its way. */
struct way {
    const struct walker *walker;
    const struct controls *controls;
    uint64_t address;
    uint32_t access;
    /* What all levels together allow (RW, US), and whether one of them says no-execute. */
    uint64_t rights, no_execute;
};

const struct range *sevplug_find(const struct walker *walker, uint64_t gpa)
{
    for (int number = 0; number < RANGES; number++) {
        const struct range *range = &walker->ranges[number];
        if (gpa - range->gpa < range->size)
            return range;
    }
    return NULL;
}

/* Where an entry lies, if it can be read as it is: tables are private. */
static void *entry_at(const struct walker *walker, uint64_t gpa)
{
    const struct range *range = sevplug_find(walker, gpa);
    if (range == NULL)
        return NULL;
    uint64_t inside = gpa - range->gpa;
    if (range->states != NULL && range->states[inside >> PAGE_SHIFT] != PRIVATE_FORM)
        return NULL;
    return range->bytes + inside;
}

static int64_t fault(const struct way *way, uint32_t code)
{
    const struct controls *controls = way->controls;
    bool no_execute = (controls->efer & EFER_NXE) && (controls->cr4 & CR4_PAE);
    if (way->access & WRITE)
        code |= PF_W;
    if (way->access & USER)
        code |= PF_U;
    if (way->access & FETCH && (no_execute || controls->cr4 & CR4_SMEP))
        code |= PF_I;
    return ~(int64_t)code;
}

static uint32_t permissions(const struct way *way)
{
    const struct controls *controls = way->controls;
    uint32_t allowed;
    if (way->access & USER) {
        if (!(way->rights & US))
            return 0;
        allowed = way->rights & RW ? READABLE | WRITABLE | EXECUTABLE : READABLE | EXECUTABLE;
    } else {
        allowed = READABLE | EXECUTABLE;
        if (way->rights & RW || !(controls->cr0 & CR0_WP))
            allowed |= WRITABLE;
        if (way->rights & US) {
            if (controls->cr4 & CR4_SMEP)
                allowed &= ~EXECUTABLE;
            if (controls->cr4 & CR4_SMAP && !controls->ac)
                allowed &= EXECUTABLE;
        }
    }
    return way->no_execute ? allowed & ~EXECUTABLE : allowed;
}

/* The permission that the access needs has the number of its kind. */
_Static_assert((int)READ == (int)READABLE && (int)WRITE == (int)WRITABLE && (int)FETCH == (int)EXECUTABLE, "by number");

/* The end of a walk: `page` as its entry has it.  `*wanted` becomes the entry with accessed and dirty bits. */
static int64_t leaf(const struct way *way, uint64_t entry, uint64_t page, uint64_t *wanted)
{
    uint64_t mask = way->walker->mask;
    if (page & mask)
        page = (page ^ mask) | (uint64_t)PRIVATE;
    uint32_t allowed = permissions(way);
    if (!(allowed & way->access & (READ | WRITE | FETCH)))
        return fault(way, PF_P);
    *wanted = entry | (way->access & WRITE ? A | D : A);
    if (!(*wanted & D))
        allowed &= ~WRITABLE;
    if (entry & G && way->controls->cr4 & CR4_PGE)
        allowed |= GLOBAL;
    return (int64_t)(page | allowed);
}

static int64_t leaf64(const struct way *way, uint64_t *entry, uint64_t page)
{
    uint64_t wanted = *entry;
    int64_t found = leaf(way, *entry, page, &wanted);
    if (found >= 0 && wanted != *entry)
        *entry = wanted;
    if (found < 0 || found & PRIVATE || !way->walker->mask)
        return found;
    if (way->access & FETCH)
        return (found & ~(int64_t)(READABLE | WRITABLE)) | PRIVATE | UNLIKE_DATA;
    return found & ~(int64_t)EXECUTABLE;
}

static int64_t leaf32(const struct way *way, uint32_t *entry, uint64_t page)
{
    uint64_t wanted = *entry;
    int64_t found = leaf(way, *entry, page, &wanted);
    if (found < 0)
        return found;
    if (wanted != *entry)
        *entry = (uint32_t)wanted;
    return way->walker->mask ? found | PRIVATE : found;
}

/* One level down by `entry`, whose rights count from now on; 0, or the fault that it is. */
static int64_t descend(struct way *way, uint64_t entry, uint64_t reserved)
{
    if (!(entry & P))
        return fault(way, 0);
    if (entry & reserved)
        return fault(way, PF_P | PF_RSVD);
    way->rights &= entry;
    way->no_execute |= entry & NX;
    return 0;
}

static int64_t walk_long(struct way *way)
{
    const struct walker *walker = way->walker;
    uint64_t address = way->address;
    uint64_t reserved = walker->too_wide & ~walker->mask;
    if (!(way->controls->efer & EFER_NXE))
        reserved |= NX;
    uint64_t table = way->controls->cr3 & PAGE_ADDRESS & ~walker->mask;
    for (int shift = 39;; shift -= 9) {
        uint64_t *entry = entry_at(walker, table | (address >> (shift - 3) & 0xff8));
        if (entry == NULL)
            return RARE;
        int64_t refused = descend(way, *entry, reserved);
        if (refused)
            return refused;
        if (shift == 12 || *entry & PS) {
            uint64_t low = (UINT64_C(1) << shift) - 0x1000;
            /* Address bits below the size of a large page; bit 12 there is PAT. */
            if (shift == 39 || (shift > 12 && *entry & PAGE_ADDRESS & low & ~UINT64_C(0x1000)))
                return fault(way, PF_P | PF_RSVD);
            return leaf64(way, entry, (*entry & PAGE_ADDRESS & ~low) | (address & low));
        }
        if (!(*entry & A))
            *entry |= A;
        table = *entry & PAGE_ADDRESS & ~walker->mask;
    }
}

static int64_t walk_pae(struct way *way)
{
    const struct walker *walker = way->walker;
    uint64_t address = way->address & 0xffffffff;
    uint64_t reserved = (walker->too_wide & ~walker->mask) | ABOVE_ADDRESS;
    if (!(way->controls->efer & EFER_NXE))
        reserved |= NX;
    uint64_t top = (way->controls->cr3 & 0xfffff000 & ~walker->mask) | (way->controls->cr3 & 0xfe0);
    uint64_t *entry = entry_at(walker, top | (address >> 27 & 0x18));
    if (entry == NULL)
        return RARE;
    if (!(*entry & P))
        return fault(way, 0);
    if (*entry & (reserved | NX | NO_RIGHTS))
        return fault(way, PF_P | PF_RSVD);
    for (int shift = 21;; shift = 12) {
        uint64_t table = *entry & PAGE_ADDRESS & ~walker->mask;
        if (shift == 12 && !(*entry & A))
            *entry |= A;
        entry = entry_at(walker, table | (address >> (shift - 3) & 0xff8));
        if (entry == NULL)
            return RARE;
        int64_t refused = descend(way, *entry, reserved);
        if (refused)
            return refused;
        if (shift == 12 || *entry & PS) {
            uint64_t low = (UINT64_C(1) << shift) - 1;
            if (shift == 21 && *entry & 0x1fe000)
                return fault(way, PF_P | PF_RSVD);
            return leaf64(way, entry, (*entry & PAGE_ADDRESS & ~low) | (address & low & ~UINT64_C(0xfff)));
        }
    }
}

static int64_t walk_32_bit(struct way *way)
{
    const struct walker *walker = way->walker;
    uint64_t address = way->address & 0xffffffff;
    uint32_t *entry = entry_at(walker, (way->controls->cr3 & 0xfffff000 & ~walker->mask) | (address >> 20 & 0xffc));
    if (entry == NULL)
        return RARE;
    if (!(*entry & P))
        return fault(way, 0);
    way->rights &= *entry;
    if (*entry & PS && way->controls->cr4 & CR4_PSE) {
        if (*entry & 1 << 21)
            return fault(way, PF_P | PF_RSVD);
        /* PSE-36: bits 20:13 are bits 39:32 of the address. */
        uint64_t above = (uint64_t)(*entry >> 13 & 0xff) << 32;
        return leaf32(way, entry, (*entry & 0xffc00000) | above | (address & 0x3ff000));
    }
    if (!(*entry & A))
        *entry |= A;
    entry = entry_at(walker, (*entry & 0xfffff000 & ~walker->mask) | (address >> 10 & 0xffc));
    if (entry == NULL)
        return RARE;
    if (!(*entry & P))
        return fault(way, 0);
    way->rights &= *entry;
    return leaf32(way, entry, *entry & 0xfffff000);
}

int64_t sevplug_translate(const struct walker *walker, uint64_t address, uint32_t access, const struct controls *controls)
{
    struct way way = {walker, controls, address, access, RW | US, 0};
    if (!(controls->cr0 & CR0_PG))
        return (int64_t)(address & 0xfffff000) | (walker->mask ? PRIVATE : 0) | READABLE | WRITABLE | EXECUTABLE;
    if (controls->efer & EFER_LMA)
        return walk_long(&way);
    if (controls->cr4 & CR4_PAE)
        return walk_pae(&way);
    /* NXE means nothing to 32-bit paging, CR4.PAE being off. */
    return walk_32_bit(&way);
}
