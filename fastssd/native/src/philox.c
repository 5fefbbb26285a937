#include <stdint.h>

#define ROUNDS 10

/* Write the Philox-4x32-10 block of each counter of four words. `key` has its low word first.
   Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). */
void fastssd_philox(const uint32_t *counters, int64_t num, uint64_t key, uint32_t *blocks) {
    for (int64_t i = 0; i < num; i++) {
        uint32_t c0 = counters[4 * i], c1 = counters[4 * i + 1], c2 = counters[4 * i + 2],
                 c3 = counters[4 * i + 3], k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
        for (int round = 0; round < ROUNDS; round++) {
            uint64_t product_0 = (uint64_t)0xD2511F53 * c0, product_1 = (uint64_t)0xCD9E8D57 * c2;
            c0 = (uint32_t)(product_1 >> 32) ^ c1 ^ k0;
            c1 = (uint32_t)product_1;
            c2 = (uint32_t)(product_0 >> 32) ^ c3 ^ k1;
            c3 = (uint32_t)product_0;
            k0 += 0x9E3779B9;
            k1 += 0xBB67AE85;
        }
        blocks[4 * i] = c0;
        blocks[4 * i + 1] = c1;
        blocks[4 * i + 2] = c2;
        blocks[4 * i + 3] = c3;
    }
}
