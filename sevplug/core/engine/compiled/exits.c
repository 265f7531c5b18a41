/* Intercepted instructions of sevplug/core/engine/intercepts.py, compiled: those that a kernel executes all the time.
 *
 * RDTSC, PAUSE and writes of CR3 in 64-bit code.  What is rare is given to Python's callback before anything is changed:
 * all other exits and exceptions, a timer that is due, the trap flag, an instruction that is not at hand.
 */
#include "fill.h"

/* What the engine calls for an exception, or for an exit with this and the APM's exit code (volume 2, appendix C). */
#define EXIT 0x100u
#define EXIT_CR3_WRITE 0x13u
#define EXIT_RDTSC 0x6eu
#define EXIT_PAUSE 0x77u

#define CR4_PGE (UINT64_C(1) << 7)
#define INSTRUCTION_SIZE 15
enum { RAX = 0, RDX = 2 };

typedef void (*exit_callback)(void *handle, uint32_t number, void *user);

/* Shared with Python, which makes it (compiled/exits.py). */
struct exits {
    struct fills *fills;
    exit_callback python;
    /* Virtual nanoseconds: now, and the next timer's deadline (clock.py). */
    uint64_t *times;
    /* The state of rdrand.py's jitter. */
    uint64_t *jitter;
    uint64_t *tsc_offset;
    uint32_t tsc_mhz, event_ns, pause_ns;
    uint32_t enabled;
};

size_t sevplug_size_of_exits(void)
{
    return sizeof(struct exits);
}

/* The bytes from RIP on, which is in 64-bit code; NULL: not at hand. */
static const uint8_t *instruction(const struct fills *fills, uint64_t rip)
{
    uint64_t page = code_page(fills, rip & ~UINT64_C(0xfff)), inside = rip & 0xfff;
    if (page == NO_PAGE || inside > (1u << PAGE_SHIFT) - INSTRUCTION_SIZE)
        return NULL;
    const struct range *range = sevplug_find(&fills->walker, page);
    if (range == NULL)
        return NULL;
    uint64_t offset = page - range->gpa;
    if (range->states != NULL && (range->states[offset >> PAGE_SHIFT] & (PRIVATE_FORM | UNTOUCHED)) != PRIVATE_FORM)
        return NULL;
    return range->bytes + offset + inside;
}

/* Rdrand.py's Jitter.next. */
static uint64_t jitter(uint64_t *state)
{
    uint64_t word = *state += UINT64_C(0x9e3779b97f4a7c15);
    word = (word ^ word >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    word = (word ^ word >> 27) * UINT64_C(0x94d049bb133111eb);
    return (word ^ word >> 31) >> 56;
}

static void load_cr3(const struct fills *fills, uint64_t value)
{
    *word(fills, fills->offsets.cr3) = value;
    uint32_t count = *fills->local_count;
    *fills->local_count = 0;
    if (count > fills->local_size || !(*word(fills, fills->offsets.cr4) & CR4_PGE)) {
        fills->flush();
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        fills->flush_page(fills->cpu, fills->local[i]);
}

/* Its length in bytes where the instruction was done, else 0. */
static uint64_t execute(const struct exits *exits, uint32_t code, const uint8_t *bytes)
{
    struct fills *fills = exits->fills;
    uint64_t *registers = (uint64_t *)fills->state;
    if (code == EXIT_PAUSE && bytes[0] == 0xf3 && bytes[1] == 0x90) {
        exits->times[0] += exits->event_ns + exits->pause_ns;
        return 2;
    }
    if (code == EXIT_RDTSC && bytes[0] == 0x0f && bytes[1] == 0x31) {
        exits->times[0] += exits->event_ns + jitter(exits->jitter);
        uint64_t counted = (uint64_t)((unsigned __int128)exits->times[0] * exits->tsc_mhz / 1000) + *exits->tsc_offset;
        registers[RAX] = counted & UINT32_MAX;
        registers[RDX] = counted >> 32;
        return 2;
    }
    if (code == EXIT_CR3_WRITE) {
        uint32_t rex = (bytes[0] & 0xf0) == 0x40;
        if (bytes[rex] != 0x0f || bytes[rex + 1] != 0x22)
            return 0;
        exits->times[0] += exits->event_ns;
        load_cr3(fills, registers[(rex ? bytes[0] & 1 : 0) << 3 | (bytes[rex + 2] & 7)]);
        return rex + 3;
    }
    return 0;
}

void sevplug_exit(void *handle, uint32_t number, void *user)
{
    struct exits *exits = user;
    struct fills *fills = exits->fills;
    uint32_t code = number - EXIT;
    if (!exits->enabled || (code != EXIT_RDTSC && code != EXIT_PAUSE && code != EXIT_CR3_WRITE))
        goto rare;
    if (!(*half(fills, fills->offsets.hflags) & HF_CS64) || *word(fills, fills->offsets.eflags) & RFLAGS_TF)
        goto rare;
    if (exits->times[0] + exits->event_ns >= exits->times[1])
        goto rare;
    uint64_t *rip = word(fills, fills->offsets.eip);
    const uint8_t *bytes = instruction(fills, *rip);
    uint64_t length = bytes == NULL ? 0 : execute(exits, code, bytes);
    if (length == 0)
        goto rare;
    *half(fills, fills->offsets.old_exception) = UINT32_MAX;
    *rip += length;
    *half(fills, fills->offsets.hflags) &= ~HF_INHIBIT_IRQ;
    return;
rare:
    exits->python(handle, number, NULL);
}
