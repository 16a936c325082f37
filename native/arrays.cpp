// Arrays from outside, checked.

#include "arrays.hpp"

#include <algorithm>
#include <cmath>

namespace bisquit {
namespace {

std::string text(const std::vector<size_t>& shape) {
    std::string out = "(";
    for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
    return out + ")";
}

}  // namespace

size_t product(const std::vector<size_t>& shape) {
    size_t count = 1;
    for (size_t n : shape) count *= n;
    return count;
}

void require_within(const char* name, int value, int most, int least) {
    require(least <= value && value <= most, std::string(name) + " is " + std::to_string(value) +
                                                 ": it must be between " + std::to_string(least) + " and " +
                                                 std::to_string(most));
}

Array fetch(const Find& find, const std::string& name, const std::vector<size_t>& shape) {
    const std::optional<Array> array = find(name);
    require(array.has_value(), name + " is missing");
    require(array->shape == shape, name + " is " + text(array->shape) + ": it must be " + text(shape));
    return *array;
}

const float* floats(const Find& find, const std::string& name, const std::vector<size_t>& shape) {
    const float* floats = fetch(find, name, shape).floats;
    require(floats != nullptr, name + " must be float32");
    require(std::all_of(floats, floats + product(shape), [](float x) { return std::isfinite(x); }),
            name + " holds a number that is not finite: the model is damaged, or its training diverged");
    return floats;
}

const int8_t* codes(const Find& find, const std::string& name, const std::vector<size_t>& shape) {
    const int8_t* codes = fetch(find, name, shape).codes;
    require(codes != nullptr, name + " must be int8");
    require(std::all_of(codes, codes + product(shape), [](int8_t c) { return c >= -127; }),
            name + " holds -128: codes are between -127 and 127");
    return codes;
}

}  // namespace bisquit
