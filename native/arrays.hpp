// Arrays from outside, checked, and memory of our own to lay them out in.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace bisquit {

inline void require(bool holds, const std::string& message) {
    if (!holds) throw std::invalid_argument(message);
}

// Zeros on whole cache lines, which the system gives as they are touched.
template <class T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(size_t count) {
        if (count > SIZE_MAX / sizeof(T) - LINE) throw std::bad_alloc();
        base.reset(std::calloc(count * sizeof(T) + LINE, 1));
        if (!base) throw std::bad_alloc();
        first = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(base.get()) + LINE - 1) / LINE * LINE);
    }
    T* data() const { return first; }

  private:
    static constexpr size_t LINE = 64;
    struct Free {
        void operator()(void* p) const { std::free(p); }
    };
    std::unique_ptr<void, Free> base;
    T* first = nullptr;
};

// An array that someone else owns, rows last: float32, or int8 where `codes` is set, or int32 where `integers` is.
struct Array {
    const float* floats = nullptr;
    const int8_t* codes = nullptr;
    const int32_t* integers = nullptr;
    std::vector<size_t> shape;
};

using Find = std::function<std::optional<Array>(const std::string& name)>;

// The array of a name. All throw std::invalid_argument where it is missing, of another shape or type, not finite, or
// holds -128.
Array fetch(const Find& find, const std::string& name, const std::vector<size_t>& shape);
const float* floats(const Find& find, const std::string& name, const std::vector<size_t>& shape);
const int8_t* codes(const Find& find, const std::string& name, const std::vector<size_t>& shape);

// Throws std::invalid_argument unless least <= value <= most.
void require_within(const char* name, int value, int most, int least = 1);

// How many entries an array of a shape has.
size_t product(const std::vector<size_t>& shape);

// Memory that a model is laid out in, which stays where it is.
struct Room {
    std::vector<Buffer<float>> floats;
    std::vector<Buffer<int8_t>> bytes;
    std::vector<Buffer<int32_t>> integers;
};

}  // namespace bisquit
