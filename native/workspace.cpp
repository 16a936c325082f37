// The memory that pictures are decoded in.

#include "workspace.hpp"

#include <algorithm>
#include <cmath>

namespace bisquit {

Ways::Ways(const Shape& shape, int count, const float* from_places, const int32_t* from_around)
    : shape(shape), count(count) {
    const size_t steps = size_t(count) * shape.length, width = shape.width, stride = shape.width_stride();
    require(std::all_of(from_places, from_places + steps * width, [](float x) { return std::isfinite(x); }),
            "places hold a number that is not finite");
    for (int i = 0; i < count; ++i) check_around(shape, from_around + size_t(i) * shape.length * shape.neighbours);
    places = Buffer<float>(steps * stride);
    for (size_t step = 0; step < steps; ++step)
        std::copy_n(from_places + step * width, width, places.data() + step * stride);
    all_around = Buffer<int32_t>(steps * shape.neighbours);
    std::copy_n(from_around, steps * shape.neighbours, all_around.data());
}

Way Ways::operator[](int picture) const {
    const size_t first = count > 1 ? size_t(picture) * shape.length : 0;
    return {all_around.data() + first * shape.neighbours, places.data() + first * shape.width_stride()};
}

Workspace::Workspace(const PackedModel& model) : model(model), shape(model.model().shape) {}

size_t Workspace::bytes_a_picture() const {
    const size_t values = size_t(shape.length_stride()) * (shape.key_channels() + shape.value_channels());
    return size_t(shape.n_layers) * shape.n_heads * values * (model.is_int8 ? 1 : sizeof(float));
}

const Memory* Workspace::picture_memory() {
    const size_t heads = size_t(shape.n_layers) * shape.n_heads, length = shape.length_stride();
    const size_t unit = model.is_int8 ? 1 : sizeof(float);
    Memory* memory = room<Memory>(heads);
    uint8_t* bytes = room<uint8_t>(bytes_a_picture());
    float* steps = model.is_int8 ? room<float>(heads * 2 * length) : nullptr;
    for (size_t head = 0; head < heads; ++head) {
        uint8_t* keys = bytes + head * (bytes_a_picture() / heads);
        float* step = steps ? steps + head * 2 * length : nullptr;
        memory[head] = {keys, keys + length * shape.key_channels() * unit, step, step ? step + length : nullptr};
    }
    return memory;
}

void Workspace::forget(const Memory* memory) const {
    if (!model.is_int8) return;
    for (int head = 0; head < shape.n_layers * shape.n_heads; ++head)
        std::fill_n(memory[head].value_step, shape.length_stride(), 0.0f);  // steps to come weigh nothing
}

Group Workspace::group(int rows, bool reads, int team, Picture* pictures) {
    Scratch* scratch = room<Scratch>(team);
    const size_t r = rows, widest = shape.widest(), length = shape.length_stride();
    for (int rank = 0; rank < team; ++rank)
        scratch[rank] = {room<float>(r * widest),
                         room<uint8_t>(r * widest),
                         room<float>(r),
                         room<int32_t>(widest),
                         room<float>(length),
                         room<uint8_t>(std::max(widest, length)),
                         room<float>(size_t(3) * shape.codebook_stride())};
    return {rows,
            reads,
            0,
            true,
            false,
            nullptr,
            pictures,
            room<float>(r * shape.width_stride()),
            room<float>(r * 3 * shape.heads_stride()),
            room<float>(r * shape.heads_stride()),
            room<float>(r * shape.hidden_stride()),
            room<float>(r * shape.codebook_stride()),
            room<uint32_t>(r * 2 * shape.codebook),
            room<int64_t>(r),
            room<int32_t>(r * shape.codebook_stride()),
            scratch};
}

}  // namespace bisquit
