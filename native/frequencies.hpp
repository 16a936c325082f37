// Logits to whole numbers, for a range coder: frequencies of src/bisquit/engine/frequencies.py, bit by bit. Exact where
// products are not fused.

#pragma once

#include "functions.hpp"

namespace bisquit::VARIANT {

constexpr int32_t FREQUENCY_TOTAL = 1 << 24;

// The frequencies of a row of logits, all finite: each at least 1, and together FREQUENCY_TOTAL. Both have room for
// whole vectors.
inline void frequencies(const float* logits, int codebook, int32_t* found) {
    const float most = largest_of(logits, codebook);
    for (int i = 0; i < codebook; i += LANES)
        store(found + i, nearest_integer(exp2(smaller(load(logits + i) - most, F{}) * LOG2_E) * 65536.0f));
    int64_t total = 0;
    for (int i = 0; i < codebook; ++i) total += found[i];
    int likeliest = 0;
    while (found[likeliest] != 65536) ++likeliest;
    // A quotient that is no whole number is 1 / total away from one at least; float64 rounds away at most 2**-53 of it,
    // which is less, for the products are below 2**40.
    const int32_t free = FREQUENCY_TOTAL - codebook;
    const double share = free, all = static_cast<double>(total);
    int32_t left = free;
    for (int i = 0; i < codebook; ++i) found[i] = static_cast<int32_t>(found[i] * share / all);
    for (int i = 0; i < codebook; ++i) left -= found[i];
    found[likeliest] += left;
    for (int i = 0; i < codebook; ++i) found[i] += 1;
}

}  // namespace bisquit::VARIANT
