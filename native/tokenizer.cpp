// Tokenizers: from arrays to the layout that the kernels read, and batches of pictures shared out among threads.

#include <algorithm>
#include <atomic>
#include <cmath>

#include "engine.hpp"
#include "threads.hpp"

namespace bisquit {

PackedTokenizer::PackedTokenizer(const TokenizerShape& shape, float code_step, const Find& find) {
    require_within("patch_size", shape.patch_size, 64);
    require_within("width", shape.width, LARGEST_STRIDE);
    require_within("channels", shape.channels, LARGEST_STRIDE);
    require_within("encoder_blocks", shape.encoder_blocks, 256, 0);
    require_within("decoder_blocks", shape.decoder_blocks, 256, 0);
    require(std::isfinite(code_step), "code_step is not finite");
    packed.shape = shape;
    packed.code_step = code_step;
    const int width = shape.width;
    packed.stem = convolution(find, "stem", 1, shape.values(), width);
    packed.down = convolution(find, "down", 1, width, shape.channels);
    packed.up = convolution(find, "up", 1, shape.channels, width);
    packed.last = convolution(find, "last", 1, width, shape.values());
    packed.up_back = convolution(find, "up_back", 1, width, shape.channels);
    packed.last_back = convolution(find, "last_back", 1, shape.values(), width);
    encoder = residual_blocks(find, "encoder", shape.encoder_blocks);
    decoder = residual_blocks(find, "decoder", shape.decoder_blocks);
    decoder_back = residual_blocks(find, "decoder_back", shape.decoder_blocks);
    packed.encoder = encoder.data();
    packed.decoder = decoder.data();
    packed.decoder_back = decoder_back.data();
}

std::vector<ResidualBlock> PackedTokenizer::residual_blocks(const Find& find, const std::string& name, int count) {
    const int width = packed.shape.width;
    std::vector<ResidualBlock> blocks;
    for (int i = 0; i < count; ++i) {
        const std::string block = name + "." + std::to_string(i);
        blocks.push_back({convolution(find, block + ".first", 9, width, width),
                          convolution(find, block + ".second", 9, width, width)});
    }
    return blocks;
}

Convolution PackedTokenizer::convolution(const Find& find, const std::string& name, int taps, int inputs, int outputs) {
    const size_t n_taps = taps, n_outputs = outputs, n_inputs = inputs;
    const int8_t* from = codes(find, name + ".codes", {n_taps, n_outputs, n_inputs});
    const float* from_step = floats(find, name + ".step", {n_outputs});
    const float* from_bias = floats(find, name + ".bias", {n_outputs});
    Convolution out;
    out.taps = taps;
    out.inputs = round_up(inputs, PANEL);
    out.outputs = round_up(outputs, PANEL);
    const size_t rows = out.inputs, columns = out.outputs;
    int8_t* packed_codes = room.bytes.emplace_back(n_taps * rows * columns).data();
    int32_t* correction = room.integers.emplace_back(n_taps * columns).data();
    float* step = room.floats.emplace_back(columns).data();
    float* bias = room.floats.emplace_back(columns).data();
    std::copy_n(from_step, outputs, step);
    std::copy_n(from_bias, outputs, bias);
    for (size_t tap = 0; tap < n_taps; ++tap)
        for (size_t n = 0; n < n_outputs; ++n) {
            int8_t* panel = packed_codes + (n / PANEL * n_taps + tap) * rows * PANEL + n % PANEL * 4;
            for (size_t k = 0; k < n_inputs; ++k) {
                const int8_t code = from[(tap * n_outputs + n) * n_inputs + k];
                panel[k / 4 * 4 * PANEL + k % 4] = code;
                correction[tap * columns + n] -= OFFSET * code;
            }
        }
    out.codes = packed_codes;
    out.correction = correction;
    out.step = step;
    out.bias = bias;
    return out;
}

void PackedTokenizer::project(const Batch& batch, const uint8_t* frames, float* projected) const {
    each(batch, false, [&](size_t i, const Canvas& canvas) {
        batch.kernels.tokenizer.project(packed, canvas, frames + i * pixels(batch), projected + i * values(canvas));
    });
}

void PackedTokenizer::decode(const Batch& batch, const int8_t* vectors, uint8_t* frames) const {
    each(batch, false, [&](size_t i, const Canvas& canvas) {
        batch.kernels.tokenizer.decode(packed, canvas, vectors + i * values(canvas), frames + i * pixels(batch));
    });
}

void PackedTokenizer::slopes(const Batch& batch, const int8_t* vectors, const uint8_t* frames, float* slopes) const {
    each(batch, true, [&](size_t i, const Canvas& canvas) {
        batch.kernels.tokenizer.slopes(packed, canvas, vectors + i * values(canvas), frames + i * pixels(batch),
                                       slopes + i * values(canvas));
    });
}

// Do work(i, canvas) for each picture. keeps_all: the canvas has room for what is seen on the way.
template <class Work>
void PackedTokenizer::each(const Batch& batch, bool keeps_all, const Work& work) const {
    require_within("height", batch.height, 1 << 14);
    require_within("width", batch.width, 1 << 14);
    require_within("threads", batch.threads, 1024);
    const int threads = std::min(batch.threads, batch.count);
    std::vector<Canvas> canvases;
    Room own;
    for (int i = 0; i < threads; ++i) {
        Canvas canvas{batch.height, batch.width, rows(batch.height), columns(batch.width), {}, {}, {}, {}, {}};
        const size_t floats = size_t(canvas.cells()) * shape().stride();
        canvas.x = own.floats.emplace_back(floats).data();
        canvas.hidden = own.floats.emplace_back(floats).data();
        if (keeps_all) canvas.seen = own.floats.emplace_back(2 * shape().decoder_blocks * floats).data();
        const size_t bytes = size_t(canvas.bordered_cells()) * shape().stride();
        canvas.codes = reinterpret_cast<uint8_t*>(own.bytes.emplace_back(bytes).data());
        std::fill_n(canvas.codes, bytes, static_cast<uint8_t>(OFFSET));
        canvas.code_step = own.floats.emplace_back(canvas.bordered_cells()).data();
        canvases.push_back(canvas);
    }
    if (threads == 0) return;
    std::atomic<int> next{0};
    run_threads(threads, [&](int thread) {
        for (int i; (i = next++) < batch.count;) work(size_t(i), canvases[thread]);
    });
}

}  // namespace bisquit
