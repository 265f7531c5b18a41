/* What the fill callback and the exits share. */
#ifndef SEVPLUG_FILL_H
#define SEVPLUG_FILL_H

#include "walk.h"

#include <stddef.h>

#define CODE_SLOTS 4096

/* Bits of the CPU state's words of flags (internals.py). */
#define HF_CPL 3u
#define HF_INHIBIT_IRQ (1u << 3)
#define HF_LMA (1u << 14)
#define HF_CS64 (1u << 15)
#define RFLAGS_TF (UINT64_C(1) << 8)
#define RFLAGS_AC (UINT64_C(1) << 18)

/* The engine's (unicorn's uc_tlb_entry). */
struct translation {
    uint64_t page;
    uint32_t permissions;
};

typedef bool (*fill_callback)(void *handle, uint64_t address, int kind, struct translation *result, void *user);

/* Where the state of the engine's CPU has what is needed, in bytes (internals.py). */
struct offsets {
    uint32_t hflags, eflags, cr0, cr3, cr4, efer, eip, old_exception;
};

/* Shared with Python, which makes it (compiled/fills.py). */
struct fills {
    struct walker walker;
    uint8_t *state;
    struct offsets offsets;
    fill_callback python;
    uint32_t enabled;
    /* The linear pages that are not global and were handed out since `local_count` was 0; when there are more than
     * `local_size`, only how many. */
    uint32_t local_size;
    uint32_t *local_count;
    uint64_t *local;
    /* Where code at a linear page was found last, by the page's number modulo CODE_SLOTS. */
    uint64_t *code_linear, *code_gpa;
    uint64_t count;
    /* How often all translations were forgotten. */
    uint64_t *flushes;
    /* The engine's CPU, its function that forgets one page's translation, and Python's that forgets all. */
    void *cpu;
    void (*flush_page)(void *cpu, uint64_t address);
    void (*flush)(void);
};

/* The page that holds the code at a linear page as far as it is remembered, else NO_PAGE. */
#define NO_PAGE UINT64_MAX

static inline uint64_t code_page(const struct fills *fills, uint64_t linear)
{
    uint64_t slot = linear >> PAGE_SHIFT & (CODE_SLOTS - 1);
    return fills->code_linear[slot] == linear ? fills->code_gpa[slot] : NO_PAGE;
}

static inline uint64_t *word(const struct fills *fills, uint32_t offset)
{
    return (uint64_t *)(fills->state + offset);
}

static inline uint32_t *half(const struct fills *fills, uint32_t offset)
{
    return (uint32_t *)(fills->state + offset);
}

#endif
