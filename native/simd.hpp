// Vectors of the processor's own width, by the compiler's vector types; intrinsics only for the product of bytes.
// Everything here lies in a namespace of its own for each processor and precision, and nothing of the standard library
// is used: an inline function compiled for one processor must never run on another.

#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "model.hpp"

namespace bisquit::VARIANT {

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
constexpr int REGISTERS = 32;
#elif defined(__AVX2__)
constexpr int VECTOR_BYTES = 32;
constexpr int REGISTERS = 16;
#else
constexpr int VECTOR_BYTES = 16;
#if defined(__aarch64__)
constexpr int REGISTERS = 32;
#else
constexpr int REGISTERS = 16;
#endif
#endif

constexpr int LANES = VECTOR_BYTES / 4;

typedef float F __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t I __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t U __attribute__((vector_size(VECTOR_BYTES)));  // for sums that may wrap, where numbers are no numbers
typedef float UnalignedF __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
typedef int32_t UnalignedI __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE F load(const float* p) { return *reinterpret_cast<const UnalignedF*>(p); }
INLINE I load(const int32_t* p) { return *reinterpret_cast<const UnalignedI*>(p); }
INLINE I load_bytes(const void* p) { return *reinterpret_cast<const UnalignedI*>(p); }
INLINE void store(float* p, F v) { *reinterpret_cast<UnalignedF*>(p) = v; }
INLINE void store(int32_t* p, I v) { *reinterpret_cast<UnalignedI*>(p) = v; }
INLINE F fill(float value) { return F{} + value; }
INLINE I fill(int32_t value) { return I{} + value; }
INLINE F to_float(I v) { return __builtin_convertvector(v, F); }
INLINE I bits_of(F v) { return reinterpret_cast<I>(v); }
INLINE F float_of(I v) { return reinterpret_cast<F>(v); }
INLINE F larger(F a, F b) { return a > b ? a : b; }  // b where a is not a number
INLINE F smaller(F a, F b) { return a < b ? a : b; }
INLINE F magnitude(F v) { return float_of(bits_of(v) & 0x7fffffff); }

// Added to a magnitude below 2**22, it leaves no place for a fraction: the sum is rounded, halfway to even, and its
// lowest bits are those of the integer.
constexpr float ROUNDING = 12582912.0f;  // 2**23 + 2**22
constexpr uint32_t ROUNDING_BITS = 0x4b400000;

INLINE I nearest_integer(F v) {
    return reinterpret_cast<I>(reinterpret_cast<U>(bits_of(v + ROUNDING)) - ROUNDING_BITS);
}

INLINE I lane_numbers() {
    I numbers{};
    for (int i = 0; i < LANES; ++i) numbers[i] = i;
    return numbers;
}

typedef float Quad __attribute__((vector_size(16)));
typedef int32_t QuadI __attribute__((vector_size(16)));
typedef uint32_t QuadU __attribute__((vector_size(16)));
typedef uint8_t Bytes __attribute__((vector_size(LANES)));

// Fold a vector to four lanes, then to one.
template <class Part, class Vector, class Combine>
INLINE auto fold(Vector v, Combine combine) {
    Part parts[LANES / 4];
    __builtin_memcpy(parts, &v, VECTOR_BYTES);
    Part all = parts[0];
    for (int i = 1; i < LANES / 4; ++i) all = combine(all, parts[i]);
    const auto low = combine(all[0], all[2]), high = combine(all[1], all[3]);
    return combine(low, high);
}

INLINE float sum(F v) {
    return fold<Quad>(v, [](auto a, auto b) { return a + b; });
}
INLINE int32_t sum(U v) {
    return static_cast<int32_t>(fold<QuadU>(v, [](auto a, auto b) { return a + b; }));
}
INLINE int32_t sum(I v) { return sum(reinterpret_cast<U>(v)); }
INLINE int32_t largest(I v) {
    return fold<QuadI>(v, [](auto a, auto b) { return a > b ? a : b; });
}
INLINE float largest(F v) {
    return fold<Quad>(v, [](auto a, auto b) { return a > b ? a : b; });
}

// The lowest byte of each lane.
INLINE void store_bytes(void* p, I v) {
#if defined(__SSE2__) && !defined(__AVX512F__)  // compilers do it lane by lane
    const I low = v & 255;
    QuadI quads[LANES / 4];
    __builtin_memcpy(quads, &low, VECTOR_BYTES);
    for (int i = 0; i < LANES / 4; ++i) {
        const __m128i quad = reinterpret_cast<__m128i>(quads[i]), words = _mm_packs_epi32(quad, quad);
        const int32_t four = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
        __builtin_memcpy(static_cast<uint8_t*>(p) + 4 * i, &four, 4);
    }
#else
    const Bytes bytes = __builtin_convertvector(v, Bytes);
    __builtin_memcpy(p, &bytes, LANES);
#endif
}

#if defined(__SSE2__) && !defined(__AVX512VNNI__)
typedef int16_t Words __attribute__((vector_size(VECTOR_BYTES)));
typedef uint16_t UnsignedWords __attribute__((vector_size(VECTOR_BYTES)));

// The sums of the products of two words, in each lane.
INLINE I multiply_pairs(Words a, Words b) {
#if defined(__AVX2__)
    return reinterpret_cast<I>(_mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#else
    return reinterpret_cast<I>(_mm_madd_epi16(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#endif
}
#endif

// a + the products of four unsigned bytes of u with four signed bytes of s, in each lane; exact.
INLINE I dot4(I a, I u, I s) {
#if defined(__AVX512VNNI__)
    return reinterpret_cast<I>(
        _mm512_dpbusd_epi32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(u), reinterpret_cast<__m512i>(s)));
#elif defined(__SSE2__)
    const Words un = reinterpret_cast<Words>(u), sn = reinterpret_cast<Words>(s);
    const I even = multiply_pairs(un & 255, sn << 8 >> 8);
    const I odd = multiply_pairs(reinterpret_cast<Words>(reinterpret_cast<UnsignedWords>(u) >> 8), sn >> 8);
    return a + (even + odd);
#else
    for (int byte = 0; byte < 4; ++byte) a += ((u >> (8 * byte)) & 255) * ((s << (24 - 8 * byte)) >> 24);
    return a;
#endif
}

// Four bytes in every lane.
INLINE I fill_bytes(const void* p) {
    int32_t four;
    __builtin_memcpy(&four, p, 4);
    return fill(four);
}

}  // namespace bisquit::VARIANT
