// How much of a product is held in registers.

#pragma once

#include "simd.hpp"

namespace bisquit::VARIANT {

constexpr int PANEL_VECTORS = PANEL / LANES;
constexpr int BLOCK_VECTORS = BLOCK / LANES;
// Rows that are multiplied at a time: their sums, a row of the panel and one input fill the registers.
constexpr int FITTING_ROWS = (REGISTERS - PANEL_VECTORS - 1) / PANEL_VECTORS;
constexpr int TILE_ROWS = FITTING_ROWS < 1 ? 1 : FITTING_ROWS > 8 ? 8 : FITTING_ROWS;

// How many inputs are summed apart, so that few sums, as those of one row, do not each wait for the one before.
constexpr int side_by_side(int sums) { return sums >= 8 ? 1 : sums >= 4 ? 2 : 4; }

}  // namespace bisquit::VARIANT
