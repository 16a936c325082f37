// Rows of floats as integers and a step between them: to_codes of src/bisquit/engine/arithmetic.py.

#pragma once

#include "simd.hpp"

namespace bisquit::VARIANT {

constexpr float SMALLEST_LARGEST = 1e-30f;

// The bits of magnitudes are integers in the same order, and those of what is not a number are above them all.
INLINE I larger_magnitude(F a, I bits) {
    const I own = bits_of(a) & 0x7fffffff;
    return own > bits ? own : bits;
}
INLINE float largest_magnitude(I bits) {
    const int32_t most = largest(bits);
    float top;
    __builtin_memcpy(&top, &most, 4);
    return top;
}
INLINE float largest_magnitude(const float* x, int n) {
    I most = I{};
    for (int i = 0; i < n; i += LANES) most = larger_magnitude(load(x + i), most);
    return largest_magnitude(most);
}

// Round x to codes, the largest magnitude `top` to `limit`, add an offset to each, and return the step between them.
INLINE float to_codes(const float* x, int n, float top, int limit, int offset, void* codes) {
    const float step = (top < SMALLEST_LARGEST ? SMALLEST_LARGEST : top) * static_cast<float>(1.0 / limit);
    const float inverse = 1.0f / step;
    for (int i = 0; i < n; i += LANES)
        store_bytes(static_cast<uint8_t*>(codes) + i, nearest_integer(load(x + i) * inverse) + offset);
    return step;
}

INLINE float to_codes(const float* x, int n, int offset, void* codes) {
    return to_codes(x, n, largest_magnitude(x, n), 127, offset, codes);
}

}  // namespace bisquit::VARIANT
