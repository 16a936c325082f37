// exp2, gelu, its slope and log on vectors: the polynomials of src/bisquit/engine/arithmetic.py. Compiled without fused
// products (int8.cpp, pictures.cpp) they give that module's bits; with them (float32.cpp) they are faster and as
// accurate.

#pragma once

#include "simd.hpp"

namespace bisquit::VARIANT {

constexpr float LOG2_E = 1.442695041f;

// 2**x for x <= 0.
INLINE F exp2(F x) {
    x = larger(fill(-100.0f), x);  // not a number stays one
    const F shifted = x + ROUNDING;
    const F f = x - (shifted - ROUNDING);
    F p = fill(0.001326472731307149f);
    p = p * f + 0.009671512991189957f;
    p = p * f + 0.05550733581185341f;
    p = p * f + 0.24022242426872253f;
    p = p * f + 0.6931470036506653f;
    p = p * f + 1.0f;
    return float_of(bits_of(p) + (bits_of(shifted) << 23));  // times a power of two
}

// erf(z / sqrt(2)) for |z| up to 5.2.
INLINE F erf(F z) {
    const F t = z * z;
    F p = fill(-3.2329118937184350216e-08f);
    p = p * t + 1.074865213013254106e-05f;
    p = p * t + 0.000823595735710114241f;
    p = p * t + 0.012161314487457275391f;
    p = p * t + 0.120553880929946899414f;
    p = p * t + 0.797883510589599609375f;
    F q = fill(0.000138323783176019788f);
    q = q * t + 0.003253384958952665329f;
    q = q * t + 0.043216835707426071167f;
    q = q * t + 0.31774964928627014160f;
    q = q * t + 1.0f;
    return z * p / q;
}

INLINE F within_erf(F x) { return smaller(larger(x, fill(-5.2f)), fill(5.2f)); }

INLINE F gelu(F x) { return x * 0.5f * (erf(within_erf(x)) + 1.0f); }

INLINE F gelu_slope(F x) {
    return (erf(within_erf(x)) + 1.0f) * 0.5f + x * (exp2(x * x * -0.7213475204444817f) * 0.3989422804014327f);
}

// The natural logarithm of normal x > 0, relative error 1e-7 but near 1.
INLINE F log(F x) {
    // x = 2**exponent m, with m between sqrt(1/2) and sqrt(2); log(1 + r) = r - r r / 2 + r r r P(r).
    const I shifted = bits_of(x) - 0x3f3504f3;
    const F exponent = to_float(shifted >> 23);
    const F r = float_of((shifted & 0x007fffff) + 0x3f3504f3) - 1.0f;
    F p = fill(0.087004289f);
    p = p * r - 0.142674863f;
    p = p * r + 0.149147689f;
    p = p * r - 0.16577585f;
    p = p * r + 0.199630633f;
    p = p * r - 0.250013381f;
    p = p * r + 0.333339095f;
    return exponent * 0.693147181f + (r - r * r * 0.5f + r * r * r * p);
}

// The largest of n numbers, none of which is not a number.
INLINE float largest_of(const float* x, int n) {
    float most = x[0];
    int i = 0;
    if (n >= LANES) {
        F top = load(x);
        for (i = LANES; i + LANES <= n; i += LANES) top = larger(load(x + i), top);
        most = largest(top);
    }
    for (; i < n; ++i) most = x[i] > most ? x[i] : most;
    return most;
}

}  // namespace bisquit::VARIANT
