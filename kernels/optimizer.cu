// Optimizer steps over all parameters of a bundle in one launch.
//
// The states are flat arrays of A in which each parameter begins at a multiple of 8 elements
// (starts). The number of the step stays on the device: every block reads it first, and the last one
// to finish, found by an integer ticket, writes the next; so there is neither a second launch nor a
// wait for the host. Formulas: tensorgrad/optim/{sgd,adam,adaptive}.py.
#include "common.cuh"
#include "many.cuh"

// One element: what the rules read and write.
struct Element {
  A p, g, first, second, third;
};

template <typename Rule>
__device__ __forceinline__ void update(const Many& many, const index_t* starts, A* first,
                                       A* second, A* third, const Rule& rule) {
  const Chunk chunk(many);
  T* p = chunk.of(many, 2, 0);
  const T* g = chunk.of(many, 2, 1);
  const index_t at = starts[chunk.tensor] + chunk.begin;
  A* const states[3] = {first + at, second + at, third + at};
  if (aligned_quad(p) && aligned_quad(g)) {
    for (int i = 4 * threadIdx.x; i + 4 <= chunk.n; i += 4 * blockDim.x) {
      Quad<T> values = *reinterpret_cast<const Quad<T>*>(p + i);
      const Quad<T> gradients = *reinterpret_cast<const Quad<T>*>(g + i);
      Quad<A> held[3];
#pragma unroll
      for (int s = 0; s < Rule::states; ++s)
        if (rule.uses(s)) held[s] = *reinterpret_cast<const Quad<A>*>(states[s] + i);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        Element e = {widen(values.at[k]), widen(gradients.at[k]), held[0].at[k], held[1].at[k],
                     held[2].at[k]};
        rule.apply(e);
        values.at[k] = narrow<T>(e.p);
        held[0].at[k] = e.first;
        held[1].at[k] = e.second;
        held[2].at[k] = e.third;
      }
      *reinterpret_cast<Quad<T>*>(p + i) = values;
#pragma unroll
      for (int s = 0; s < Rule::states; ++s)
        if (rule.uses(s)) *reinterpret_cast<Quad<A>*>(states[s] + i) = held[s];
    }
  }
  const int rest = aligned_quad(p) && aligned_quad(g) ? chunk.n & ~3 : 0;
  for (int i = rest + threadIdx.x; i < chunk.n; i += blockDim.x) {
    A held[3] = {};
#pragma unroll
    for (int s = 0; s < Rule::states; ++s)
      if (rule.uses(s)) held[s] = states[s][i];
    Element e = {widen(p[i]), widen(g[i]), held[0], held[1], held[2]};
    rule.apply(e);
    p[i] = narrow<T>(e.p);
    if (Rule::states > 0 && rule.uses(0)) states[0][i] = e.first;
    if (Rule::states > 1 && rule.uses(1)) states[1][i] = e.second;
    if (Rule::states > 2 && rule.uses(2)) states[2][i] = e.third;
  }
}

// Advances the count once every block has read it.
__device__ __forceinline__ void count_step(index_t* step, index_t now, uint32* ticket) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    if (atomicAdd(ticket, 1u) == gridDim.x - 1) {
      *ticket = 0;
      *step = now;
    }
  }
}

struct Sgd {
  static constexpr int states = 1;
  A rate, memory, share, decay;
  bool has_memory, has_decay, nesterov, maximize;

  __device__ __forceinline__ bool uses(int) const { return has_memory; }
  __device__ __forceinline__ void apply(Element& e) const {
    A g = maximize ? -e.g : e.g;
    if (has_decay) g += e.p * decay;
    if (has_memory) {
      e.first = e.first * memory + g * share;
      g = nesterov ? e.first * memory + g : e.first;
    }
    e.p -= g * rate;
  }
};

extern "C" __global__ void __launch_bounds__(256, 1)
sgd(const uint64* pointers, const index_t* sizes, const int* owner, const index_t* offset,
    const index_t* starts, A* memory, index_t* step, uint32* ticket, int has_memory, int has_step,
    double lr, double momentum, double dampening, double weight_decay, int nesterov,
    int maximize) {
  const Many many = {pointers, sizes, owner, offset};
  const index_t now = has_step ? *step + 1 : 0;
  // The first gradient enters the momentum in full, whatever the dampening.
  const double share = has_step && now != 1 ? 1 - dampening : 1;
  const Sgd rule = {A(lr), A(momentum), A(share), A(weight_decay), has_memory != 0,
                    weight_decay != 0, nesterov != 0, maximize != 0};
  update(many, starts, memory, memory, memory, rule);
  if (has_step) count_step(step, now, ticket);
}

struct Adam {
  static constexpr int states = 3;
  A rate, small, keep1, new1, keep2, new2, decay;
  bool coupled, decoupled, amsgrad, maximize;

  __device__ __forceinline__ bool uses(int state) const { return state < 2 || amsgrad; }
  __device__ __forceinline__ void apply(Element& e) const {
    A g = maximize ? -e.g : e.g;
    if (coupled) g += e.p * decay;
    e.first = e.first * keep1 + g * new1;
    e.second = e.second * keep2 + g * new2 * g;  // g * g may be too large
    A v = e.second;
    if (amsgrad) v = e.third = Max::combine(e.third, v);
    A u = e.first / (sqrt(v) + small) * rate;
    if (decoupled) u += e.p * decay;
    e.p -= u;
  }
};

extern "C" __global__ void __launch_bounds__(256, 1)
adam(const uint64* pointers, const index_t* sizes, const int* owner, const index_t* offset,
     const index_t* starts, A* first, A* second, A* third, index_t* step, uint32* ticket,
     double lr, double beta1, double beta2, double eps, double weight_decay, int decoupled,
     int amsgrad, int maximize) {
  __shared__ A numbers[2];
  const Many many = {pointers, sizes, owner, offset};
  const index_t now = *step + 1;
  if (threadIdx.x == 0) {  // two powers in double precision: not for every thread
    const double root = sqrt(1 - pow(beta2, double(now)));
    numbers[0] = A(lr * root / (1 - pow(beta1, double(now))));
    numbers[1] = A(eps * root);
  }
  __syncthreads();
  const bool decays = weight_decay != 0;
  const Adam rule = {numbers[0], numbers[1], A(beta1), A(1 - beta1), A(beta2), A(1 - beta2),
                     A(decoupled ? lr * weight_decay : weight_decay), decays && !decoupled,
                     decays && decoupled, amsgrad != 0, maximize != 0};
  update(many, starts, first, second, third, rule);
  count_step(step, now, ticket);
}
