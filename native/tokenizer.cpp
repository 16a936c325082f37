// Tokenizers: from arrays to the layout that the kernels read, and batches of pictures shared out among threads.

#include <algorithm>
#include <atomic>

#include "engine.hpp"
#include "threads.hpp"

namespace bisquit {

PackedTokenizer::PackedTokenizer(const TokenizerShape& shape, const Find& find) {
    require_within("patch_size", shape.patch_size, 64);
    require_within("width", shape.width, LARGEST_STRIDE);
    require_within("bits", shape.bits, 62);
    require_within("encoder_blocks", shape.encoder_blocks, 256, 0);
    require_within("decoder_blocks", shape.decoder_blocks, 256, 0);
    packed.shape = shape;
    const int width = shape.width;
    packed.stem = convolution(find, "stem", 1, shape.values(), width);
    packed.down = convolution(find, "down", 1, width, shape.bits);
    packed.up = convolution(find, "up", 1, shape.bits, width);
    packed.last = convolution(find, "last", 1, width, shape.values());
    packed.up_back = convolution(find, "up_back", 1, width, shape.bits);
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

void PackedTokenizer::encode(const Batch& batch, const uint8_t* frames, int64_t* tokens) const {
    check(batch, nullptr);
    const size_t pixels = size_t(batch.height) * batch.width * 3;
    each(batch, false, [&](size_t i, const Canvas& canvas) {
        batch.kernels.tokenizer.encode(packed, canvas, frames + i * pixels, tokens + i * canvas.cells());
    });
}

void PackedTokenizer::decode(const Batch& batch, const int64_t* tokens, uint8_t* frames) const {
    check(batch, tokens);
    const size_t pixels = size_t(batch.height) * batch.width * 3;
    each(batch, false, [&](size_t i, const Canvas& canvas) {
        batch.kernels.tokenizer.decode(packed, canvas, tokens + i * canvas.cells(), frames + i * pixels);
    });
}

void PackedTokenizer::slopes(const Batch& batch, const int64_t* tokens, const uint8_t* frames, float* slopes) const {
    check(batch, tokens);
    const size_t pixels = size_t(batch.height) * batch.width * 3;
    each(batch, true, [&](size_t i, const Canvas& canvas) {
        batch.kernels.tokenizer.slopes(packed, canvas, tokens + i * canvas.cells(), frames + i * pixels,
                                       slopes + i * canvas.cells() * shape().bits);
    });
}

void PackedTokenizer::check(const Batch& batch, const int64_t* tokens) const {
    require_within("height", batch.height, 1 << 14);
    require_within("width", batch.width, 1 << 14);
    require_within("threads", batch.threads, 1024);
    if (!tokens) return;
    const size_t cells = size_t(batch.count) * rows(batch.height) * columns(batch.width);
    const int64_t codebook = int64_t(1) << shape().bits;
    require(std::all_of(tokens, tokens + cells, [&](int64_t token) { return 0 <= token && token < codebook; }),
            "a token is not in the codebook of " + std::to_string(codebook));
}

// Do work(i, canvas) for each picture. keeps_all: the canvas has room for what is seen on the way.
template <class Work>
void PackedTokenizer::each(const Batch& batch, bool keeps_all, const Work& work) const {
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
