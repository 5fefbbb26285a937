/* Compiling a function for several processors, of which the dynamic linker takes one. */
#ifndef FASTSSD_CLONES_H
#define FASTSSD_CLONES_H

#include <stdint.h> /* any of libc's headers: says whether it is glibc, whose linker can do that */

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(FASTSSD_ONE_CLONE)
#define FASTSSD_CLONES_AVX2 __attribute__((target_clones("avx2", "default")))
#if __GNUC__ >= 12 /* before, this name was none that a clone can have */
#define FASTSSD_CLONES_V3 __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define FASTSSD_CLONES_V3
#endif
#else
#define FASTSSD_CLONES_AVX2
#define FASTSSD_CLONES_V3
#endif

#endif
