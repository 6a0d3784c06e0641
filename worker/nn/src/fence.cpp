// The ATen calls that tch does not offer. No logic here: unpack, call, hand back.
// Every function returns 0, or 1 with a message in `error` (truncated to `error_len`).
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstdint>
#include <cstdio>
#include <exception>

namespace {

template <typename Call>
int32_t guarded(char* error, size_t error_len, Call call) {
  try {
    call();
    return 0;
  } catch (const std::exception& e) {
    std::snprintf(error, error_len, "%s", e.what());
    return 1;
  }
}

}  // namespace

extern "C" {

// Gradients of a bias-free, undilated, ungrouped 2-d convolution. `grad_input` stays null unless `want_input`.
int32_t lockstep_convolution_backward(const at::Tensor* grad_output, const at::Tensor* input, const at::Tensor* weight,
                                      int64_t stride, int64_t padding, int32_t want_input, at::Tensor** grad_input,
                                      at::Tensor** grad_weight, char* error, size_t error_len) {
  return guarded(error, error_len, [&] {
    auto [d_input, d_weight, d_bias] =
        at::convolution_backward(*grad_output, *input, *weight, at::OptionalIntArrayRef(), {stride, stride},
                                 {padding, padding}, {1, 1}, false, {0, 0}, 1, {want_input != 0, true, false});
    *grad_input = want_input != 0 ? new at::Tensor(std::move(d_input)) : nullptr;
    *grad_weight = new at::Tensor(std::move(d_weight));
  });
}

// Σ g and Σ g·(x − mean)·inv_std per channel: the gradients of a batch norm's bias and weight.
int32_t lockstep_batch_norm_gradient_sums(const at::Tensor* grad_output, const at::Tensor* input, const at::Tensor* mean,
                                          const at::Tensor* inv_std, at::Tensor** plain, at::Tensor** with_x_hat, char* error,
                                          size_t error_len) {
  return guarded(error, error_len, [&] {
    // The sums do not depend on the weight, but the kernel takes the type of its results from it.
    auto weight = at::ones_like(*mean);
    auto [d_input, d_weight, d_bias] = at::native_batch_norm_backward(*grad_output, *input, weight, {}, {}, *mean, *inv_std,
                                                                      true, 0.0, {false, true, true});
    *plain = new at::Tensor(std::move(d_bias));
    *with_x_hat = new at::Tensor(std::move(d_weight));
  });
}

// A copy of a host tensor on GPU `index`. It goes through pinned memory and a stream beside the null stream, so that it
// does not wait for the kernels that are queued there, and is over when this returns.
int32_t lockstep_copy_to_gpu(const at::Tensor* host, int32_t index, at::Tensor** copy, char* error, size_t error_len) {
  return guarded(error, error_len, [&] {
    const c10::Device gpu(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
    const c10::impl::VirtualGuardImpl streams(gpu.type());
    // The same one always, since the allocator keeps freed memory by stream; a process has one GPU.
    static const c10::Stream beside = streams.getStreamFromGlobalPool(gpu);
    TORCH_CHECK(beside.device() == gpu, "copies go to ", beside.device(), " in this process, not to ", gpu);
    const c10::StreamGuard guard(beside);
    auto there = host->pin_memory().to(gpu, /*non_blocking=*/true);
    beside.synchronize();
    there.record_stream(streams.getDefaultStream(gpu));  // that is where it is read
    *copy = new at::Tensor(std::move(there));
  });
}

// Calls `body(context, index)` for every index below `count` on the threads that ATen's own operations use: a second
// pool beside theirs would find its cores taken by their busy waiting.
void lockstep_parallel_for(int64_t count, void (*body)(const void*, int64_t), const void* context) {
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) body(context, index);
  });
}

}
