// The memory that pictures are decoded in.

#pragma once

#include "engine.hpp"

namespace bisquit {

// The ways of pictures that do not all go the model's own.
class Ways {
  public:
    // places: [count][length][width]; around: [count][length][neighbours]. Throws std::invalid_argument where a number
    // is not finite, or a neighbour is not before its step.
    Ways(const Shape& shape, int count, const float* places, const int32_t* around);

    // The way of a picture; all have the same if there is one.
    Way operator[](int picture) const;

  private:
    const Shape& shape;
    const int count;
    Buffer<float> places;
    Buffer<int32_t> all_around;
};

class Workspace {
  public:
    explicit Workspace(const PackedModel& model);

    // What the heads of one picture remember: [n_layers][n_heads].
    const Memory* picture_memory();
    size_t bytes_a_picture() const;
    // Make ready for another picture.
    void forget(const Memory* memory) const;
    // A group of so many rows, for a team of threads.
    Group group(int rows, bool reads, int team, Picture* pictures);

  private:
    template <class T>
    T* room(size_t count) {
        if (count > SIZE_MAX / sizeof(T)) throw std::bad_alloc();
        return reinterpret_cast<T*>(rooms.emplace_back(count * sizeof(T)).data());
    }

    const PackedModel& model;
    const Shape& shape;
    std::vector<Buffer<uint8_t>> rooms;
};

}  // namespace bisquit
