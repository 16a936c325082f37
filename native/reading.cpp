// Pictures that are read, several at a time, or, if they are fewer than the threads, one at a time by all of those.

#include <algorithm>
#include <atomic>

#include "session.hpp"
#include "threads.hpp"

namespace bisquit {
namespace {

constexpr int TOKENS_AT_A_TIME = 32;  // so that weights are fetched seldom, and all else stays near

}  // namespace

bool read(const PackedModel& model, int batch, const int64_t* tokens, int threads, const std::string& kernels,
          const std::vector<Reading>& readings, const Ways* ways) {
    require_within("batch", batch, 1 << 30, 0);
    require_within("threads", threads, 1024);
    if (batch == 0) return true;
    const Shape& shape = model.model().shape;
    const size_t length = shape.length;
    for (size_t i = 0; i < batch * length; ++i) check_token(shape, tokens[i]);
    const Read read_one = find_kernels(kernels).decoder(model.is_int8).read;
    std::vector<int64_t> own(tokens, tokens + batch * length);

    const int team = batch < threads ? threads : 1;
    Workspace workspace(model);
    std::vector<Picture> pictures(team > 1 ? 1 : threads);
    std::vector<Group> groups;
    for (Picture& picture : pictures) {
        picture = {nullptr, nullptr, nullptr, workspace.picture_memory(), model.model().way, false};
        groups.push_back(workspace.group(TOKENS_AT_A_TIME, true, team, &picture));
    }
    const auto begin = [&](Picture& picture, int number) {
        picture.tokens = own.data() + number * length;
        if (ways) picture.way = (*ways)[number];
        workspace.forget(picture.memory);
    };
    std::atomic<bool> is_finite{true};
    if (team > 1) {
        for (int i = 0; i < batch && is_finite; ++i) {
            begin(pictures[0], i);
            Barrier barrier{team};
            run_threads(team, [&](int rank) { read_one(model.model(), groups[0], readings[i], barrier, rank); });
            is_finite = groups[0].is_finite;
        }
        return is_finite;
    }
    std::atomic<int> next{0};
    run_threads(threads, [&](int thread) {
        for (int i; is_finite && (i = next++) < batch;) {
            begin(pictures[thread], i);
            Barrier alone{1};
            read_one(model.model(), groups[thread], readings[i], alone, 0);
            if (!groups[thread].is_finite) is_finite = false;
        }
    });
    return is_finite;
}

}  // namespace bisquit
