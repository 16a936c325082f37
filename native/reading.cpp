// Pictures that are read, several at a time.

#include <algorithm>
#include <atomic>

#include "session.hpp"
#include "threads.hpp"

namespace bisquit {
namespace {

constexpr int TOKENS_AT_A_TIME = 32;  // so that weights are fetched seldom, and all else stays near

}  // namespace

bool read(const PackedModel& model, int batch, const int64_t* tokens, int threads, const std::string& kernels,
          const std::vector<Reading>& readings) {
    require_within("threads", threads, 1024);
    const Shape& shape = model.model().shape;
    const size_t length = shape.length;
    require(std::all_of(tokens, tokens + batch * length, [&](int64_t t) { return 0 <= t && t < shape.codebook; }),
            "a token is outside of the codebook of " + std::to_string(shape.codebook));
    const Read read = find_kernels(kernels).decoder(model.is_int8).read;
    const int count = std::min(threads, batch);
    Workspace workspace(model);
    std::vector<Picture> pictures(count);
    std::vector<Group> groups;
    for (Picture& picture : pictures) {
        picture = {nullptr, nullptr, nullptr, workspace.picture_memory(), false};
        groups.push_back(workspace.group(TOKENS_AT_A_TIME, true, 1, &picture));
    }
    std::vector<int64_t> own(tokens, tokens + batch * length);
    std::atomic<int> next{0};
    std::atomic<bool> is_finite{true};
    if (count == 0) return true;
    run_threads(count, [&](int thread) {
        for (int i; is_finite && (i = next++) < batch;) {
            pictures[thread].tokens = own.data() + i * length;
            workspace.forget(pictures[thread].memory);
            if (!read(model.model(), groups[thread], readings[i])) is_finite = false;
        }
    });
    return is_finite;
}

}  // namespace bisquit
