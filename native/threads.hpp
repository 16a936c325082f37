// Work for several threads.

#pragma once

#include <future>
#include <thread>
#include <vector>

namespace bisquit {

// Run work(0), work(1) ... on as many threads, this one among them. All start together, or none does.
template <class Work>
void run_threads(int count, const Work& work) {
    std::promise<bool> all_there;
    const std::shared_future<bool> go = all_there.get_future().share();
    std::vector<std::thread> threads;
    try {
        for (int i = 1; i < count; ++i)
            threads.emplace_back([&work, go, i] {
                if (go.get()) work(i);
            });
    } catch (...) {
        all_there.set_value(false);
        for (std::thread& thread : threads) thread.join();
        throw;
    }
    all_there.set_value(true);
    work(0);
    for (std::thread& thread : threads) thread.join();
}

}  // namespace bisquit
