/* The engine's TLB-miss callback of sevplug/core/engine/fills.py, compiled: what happens all the time.
 *
 * What is rare is given to Python's from its start: faults, pages that cross from one view to the other, the first fetch
 * from a page, devices.  Until it is known that nothing of that kind is at hand, nothing is changed but accessed and dirty
 * bits, which Python would set as well.
 */
#include "fill.h"

/* Unicorn's UC_MEM_READ; UC_MEM_WRITE and UC_MEM_FETCH follow. */
#define MEM_READ 16

size_t sevplug_size_of_fills(void)
{
    return sizeof(struct fills);
}

/* The page may be handed out as `found` says; false: that takes Python. */
static bool enter(const struct range *range, uint64_t number, uint64_t address, uint32_t access, int64_t *found)
{
    uint8_t want = *found & PRIVATE ? PRIVATE_FORM : SHARED;
    uint8_t state = range->states[number];
    if (state == want)
        return true;
    if (state != (UNTOUCHED | want))
        return false;
    range->linear[number] = address;
    range->states[number] = want;
    if (!(access & WRITE)) {
        range->states[number] |= UNWRITTEN;
        *found &= ~(int64_t)WRITABLE;
    }
    return true;
}

/* A linear page is kept with its lowest bit set; 0 is none, and this stands for several (aliases.py). */
#define MANY 2u

static void end(const struct fills *fills, uint64_t *linear)
{
    if (*linear == MANY)
        fills->flush();
    else if (*linear)
        fills->flush_page(fills->cpu, *linear & ~UINT64_C(1));
    *linear = 0;
}

static void add(uint64_t *linear, uint64_t address)
{
    *linear = *linear == 0 || *linear == (address | 1) ? address | 1 : MANY;
}

/* Whether the instruction may lie in this page. */
static bool runs_in(const struct fills *fills, uint64_t page)
{
    if (!(*half(fills, fills->offsets.hflags) & HF_CS64))
        return true;
    uint64_t runs = code_page(fills, *word(fills, fills->offsets.eip) & ~UINT64_C(0xfff));
    return runs == NO_PAGE || runs == page;
}

bool sevplug_fill(void *handle, uint64_t address, int kind, struct translation *result, void *user)
{
    struct fills *fills = user;
    if (!fills->enabled)
        goto rare;
    uint32_t hflags = *half(fills, fills->offsets.hflags);
    if (hflags & HF_LMA && (address + UINT64_C(0x800000000000)) & UINT64_C(0xffff000000000000))
        goto rare;
    uint32_t access = 1u << (kind - MEM_READ);
    struct controls controls = {
        *word(fills, fills->offsets.cr0),
        *word(fills, fills->offsets.cr3),
        *word(fills, fills->offsets.cr4),
        *word(fills, fills->offsets.efer),
        *word(fills, fills->offsets.eflags) & RFLAGS_AC,
    };
    int64_t found = sevplug_translate(&fills->walker, address, (hflags & HF_CPL) == 3 ? access | USER : access, &controls);
    if (found < 0 || found & UNLIKE_DATA)
        goto rare;
    uint64_t page = (uint64_t)found & PAGE_ADDRESS;
    const struct range *range = sevplug_find(&fills->walker, page);
    if (range == NULL)
        goto rare;
    uint64_t number = (page - range->gpa) >> PAGE_SHIFT;
    bool code = range->code[number];
    if (access == FETCH && !code)
        goto rare;
    bool stores_to_code = code && !(found & EXECUTABLE) && access == WRITE;
    if (stores_to_code && runs_in(fills, page))
        goto rare;
    if (range->states != NULL && !enter(range, number, address, access, &found))
        goto rare;
    if (range->handed_out[number] != *fills->flushes)
        range->executed[number] = range->stored[number] = 0;
    if (code && found & EXECUTABLE) {
        end(fills, &range->stored[number]);
        add(&range->executed[number], address);
    } else if (stores_to_code) {
        end(fills, &range->executed[number]);
        add(&range->stored[number], address);
    } else if (code) {
        found &= ~(int64_t)WRITABLE;
    } else {
        add(&range->stored[number], address);
    }
    range->handed_out[number] = *fills->flushes;
    if (!(found & GLOBAL)) {
        uint32_t local = *fills->local_count;
        if (local < fills->local_size)
            fills->local[local] = address;
        if (local <= fills->local_size)
            ++*fills->local_count;
    }
    uint32_t allowed = (uint32_t)found & (READABLE | WRITABLE);
    /* Once code, always executable: Python says why. */
    if (code && found & EXECUTABLE) {
        uint64_t slot = address >> PAGE_SHIFT & (CODE_SLOTS - 1);
        fills->code_linear[slot] = address;
        fills->code_gpa[slot] = page;
        allowed |= EXECUTABLE;
    }
    fills->count++;
    result->page = page;
    result->permissions = allowed;
    return true;
rare:
    return fills->python(handle, address, kind, result, NULL);
}
