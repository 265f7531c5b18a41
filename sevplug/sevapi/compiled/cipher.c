/* The cipher of sevplug/sevapi/memory_cipher.py in one pass over memory, by the CPU's own AES instructions.
 *
 * memory_cipher.py is the specification.  What is here is the mode, E(plaintext ^ T) ^ T; AES itself is the processor's
 * (Intel, "Advanced Encryption Standard New Instructions Set", 2010, for the key schedule).  It protects nobody.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ROUNDS 10
#define BLOCK_SHIFT 4
#define ADDRESS_BITS 52
#define CONSTANTS (ADDRESS_BITS - BLOCK_SHIFT)
/* How many blocks are on their way at once: as many as hide the latency of one. */
#define LANE_BITS 3
#define LANES (1 << LANE_BITS)

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#define WITH_AES __attribute__((target("aes,sse2")))
#define ALWAYS __attribute__((always_inline))
/* Blocks that are on their way at once have to be registers, whatever the optimisation. */
#define EACH(i, count) _Pragma("GCC unroll 8") for (int i = 0; i < (count); i++)

/* Made by `sevplug_cipher_prepare`; Python keeps it, aligned to 16 bytes. */
struct cipher {
    __m128i encrypt[ROUNDS + 1], decrypt[ROUNDS + 1];
    /* What each bit of a block's number gives to its whitening. */
    __m128i constants[CONSTANTS];
    /* What becomes of the whitening from one block to the next: all bits up to this one change. */
    __m128i steps[CONSTANTS + 1];
    /* The whitening of the first LANES blocks. */
    __m128i lanes[LANES];
};

size_t sevplug_cipher_size(void)
{
    return sizeof(struct cipher);
}

bool sevplug_cipher_supported(void)
{
    return __builtin_cpu_supports("aes");
}

static WITH_AES __m128i next_key(__m128i key, __m128i assist)
{
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 8));
    return _mm_xor_si128(key, _mm_shuffle_epi32(assist, 0xff));
}

static WITH_AES void expand(const uint8_t *key, __m128i *keys)
{
    keys[0] = _mm_loadu_si128((const __m128i *)key);
    /* The round constant is a part of the instruction. */
#define EXPAND(round, constant) keys[round] = next_key(keys[round - 1], _mm_aeskeygenassist_si128(keys[round - 1], constant))
    EXPAND(1, 0x01);
    EXPAND(2, 0x02);
    EXPAND(3, 0x04);
    EXPAND(4, 0x08);
    EXPAND(5, 0x10);
    EXPAND(6, 0x20);
    EXPAND(7, 0x40);
    EXPAND(8, 0x80);
    EXPAND(9, 0x1b);
    EXPAND(10, 0x36);
#undef EXPAND
}

static inline ALWAYS WITH_AES void work(const __m128i *keys, bool decrypt, __m128i *blocks, const int count)
{
    EACH(i, count) blocks[i] = _mm_xor_si128(blocks[i], keys[0]);
    for (int round = 1; round < ROUNDS; round++)
        EACH(i, count)
            blocks[i] = decrypt ? _mm_aesdec_si128(blocks[i], keys[round]) : _mm_aesenc_si128(blocks[i], keys[round]);
    EACH(i, count)
        blocks[i] = decrypt ? _mm_aesdeclast_si128(blocks[i], keys[ROUNDS])
                            : _mm_aesenclast_si128(blocks[i], keys[ROUNDS]);
}

/* `key` enciphers memory, `tweak_key` the numbers of an address' bits. */
WITH_AES void sevplug_cipher_prepare(struct cipher *cipher, const uint8_t *key, const uint8_t *tweak_key)
{
    __m128i keys[ROUNDS + 1];
    expand(tweak_key, keys);
    for (int bit = 0; bit < CONSTANTS; bit++) {
        cipher->constants[bit] = _mm_cvtsi32_si128(bit + BLOCK_SHIFT);
        work(keys, false, &cipher->constants[bit], 1);
        cipher->steps[bit] = bit ? _mm_xor_si128(cipher->steps[bit - 1], cipher->constants[bit]) : cipher->constants[0];
    }
    /* Behind the last block of all is none. */
    cipher->steps[CONSTANTS] = _mm_setzero_si128();
    for (int lane = 0; lane < LANES; lane++) {
        cipher->lanes[lane] = _mm_setzero_si128();
        for (int bit = 0; bit < LANE_BITS; bit++)
            if (lane >> bit & 1)
                cipher->lanes[lane] = _mm_xor_si128(cipher->lanes[lane], cipher->constants[bit]);
    }
    expand(key, cipher->encrypt);
    cipher->decrypt[0] = cipher->encrypt[ROUNDS];
    for (int round = 1; round < ROUNDS; round++)
        cipher->decrypt[round] = _mm_aesimc_si128(cipher->encrypt[ROUNDS - round]);
    cipher->decrypt[ROUNDS] = cipher->encrypt[0];
}

/* The whitening of the block with this number, from nothing. */
static WITH_AES __m128i whitening(const struct cipher *cipher, uint64_t number)
{
    __m128i found = _mm_setzero_si128();
    for (int bit = 0; bit < CONSTANTS; bit++)
        if (number >> bit & 1)
            found = _mm_xor_si128(found, cipher->constants[bit]);
    return found;
}

static inline ALWAYS WITH_AES void apply(const struct cipher *cipher, uint64_t gpa, __m128i *blocks, size_t count,
                                         bool decrypt, bool zeros)
{
    const __m128i *keys = decrypt ? cipher->decrypt : cipher->encrypt;
    uint64_t number = gpa >> BLOCK_SHIFT;
    __m128i base = whitening(cipher, number);
    while (count) {
        __m128i lane[LANES], tweaks[LANES];
        if (count >= LANES && number % LANES == 0) {
            EACH(i, LANES) tweaks[i] = _mm_xor_si128(base, cipher->lanes[i]);
            EACH(i, LANES) lane[i] = zeros ? tweaks[i] : _mm_xor_si128(_mm_loadu_si128(blocks + i), tweaks[i]);
            work(keys, decrypt, lane, LANES);
            EACH(i, LANES) _mm_storeu_si128(blocks + i, _mm_xor_si128(lane[i], tweaks[i]));
            blocks += LANES;
            count -= LANES;
            number += LANES;
            base = _mm_xor_si128(tweaks[LANES - 1], cipher->steps[__builtin_ctzll(number)]);
        } else {
            lane[0] = zeros ? base : _mm_xor_si128(_mm_loadu_si128(blocks), base);
            work(keys, decrypt, lane, 1);
            _mm_storeu_si128(blocks, _mm_xor_si128(lane[0], base));
            blocks++;
            count--;
            number++;
            base = _mm_xor_si128(base, cipher->steps[__builtin_ctzll(number)]);
        }
    }
}

WITH_AES void sevplug_cipher_encrypt(const struct cipher *cipher, uint64_t gpa, void *buffer, size_t size)
{
    apply(cipher, gpa, buffer, size >> BLOCK_SHIFT, false, false);
}

WITH_AES void sevplug_cipher_decrypt(const struct cipher *cipher, uint64_t gpa, void *buffer, size_t size)
{
    apply(cipher, gpa, buffer, size >> BLOCK_SHIFT, true, false);
}

WITH_AES void sevplug_cipher_decrypt_zeros(const struct cipher *cipher, uint64_t gpa, void *buffer, size_t size)
{
    apply(cipher, gpa, buffer, size >> BLOCK_SHIFT, true, true);
}

#else

/* No such instructions are known here: the library's AES serves. */
bool sevplug_cipher_supported(void)
{
    return false;
}

#endif
