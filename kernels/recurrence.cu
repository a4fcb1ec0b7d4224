// The gates of LSTM and GRU, between the products of a step.
//
// Everything lies as [batch, hidden], and gates beside each other in a row, [batch, gates * hidden]. A
// thread has one unit, or as many as fit 16 bytes, of one sequence. What a step keeps for the backward
// pass takes the place of what the products gave, since the thread that reads it writes it.
//
// Formulas: tensorgrad/ops/recurrence.py. `length` says how many steps each sequence has (null: all);
// behind its end states stay as they are, and gradients pass by.
#include "common.cuh"
#include "math.cuh"

// One number, or a pack.
template <int width>
struct Some {
  A at[width];
};

template <int width>
__device__ __forceinline__ Some<width> load(const T* from) {
  Some<width> v;
  if constexpr (width > 1) {
    const Pack<T> in = *reinterpret_cast<const Pack<T>*>(from);
#pragma unroll
    for (int k = 0; k < width; ++k) v.at[k] = widen(in.at[k]);
  } else {
    v.at[0] = widen(*from);
  }
  return v;
}

// Of an array that may not be there.
template <int width>
__device__ __forceinline__ Some<width> load_if(bool there, const T* from) {
  if (there) return load<width>(from);
  Some<width> v;
#pragma unroll
  for (int k = 0; k < width; ++k) v.at[k] = A(0);
  return v;
}

template <int width>
__device__ __forceinline__ void store(T* to, const Some<width>& v) {
  if constexpr (width > 1) {
    Pack<T> out;
#pragma unroll
    for (int k = 0; k < width; ++k) out.at[k] = narrow<T>(v.at[k]);
    store_pack(to, out);
  } else {
    *to = narrow<T>(v.at[0]);
  }
}

// Calls work(row, unit) for all sequences and units.
template <int width, typename Work>
__device__ __forceinline__ void each_unit(index_t batch, index_t hidden, Work work) {
  const index_t across = hidden / width, n = batch * across;
  for (index_t i = thread_number(); i < n; i += thread_count())
    work(i / across, i % across * width);
}

__device__ __forceinline__ bool alive(const index_t* length, bool has_length, index_t row,
                                      index_t step) {
  return !has_length || step < length[row];
}

// What the kernels of a step are given.
struct Step {
  const index_t* length;
  bool has_length;
  index_t step, batch, hidden;
};

// --- LSTM ----------------------------------------------------------------------------------------

// gates: what the products gave, in the order i, f, g, o; afterwards i, f, o, g through their
// functions. cell and h: those before the step, of which the first may not be there.
struct LstmForward {
  T* gates;
  const T *bias_ih, *bias_hh, *cell, *h;
  T *new_cell, *new_h;
  bool has_bias_ih, has_bias_hh, has_cell, has_h;
};

template <int width>
__device__ __forceinline__ void lstm_step(const LstmForward& a, const Step& s) {
  each_unit<width>(s.batch, s.hidden, [=](index_t row, index_t unit) {
    const index_t at = row * s.hidden + unit;
    T* mine = a.gates + row * 4 * s.hidden + unit;
    Some<width> gate[4];
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      gate[q] = load<width>(mine + q * s.hidden);
      const Some<width> b = load_if<width>(a.has_bias_ih, a.bias_ih + q * s.hidden + unit);
      const Some<width> c = load_if<width>(a.has_bias_hh, a.bias_hh + q * s.hidden + unit);
#pragma unroll
      for (int k = 0; k < width; ++k) {
        const A sum = gate[q].at[k] + (b.at[k] + c.at[k]);
        gate[q].at[k] = q == 2 ? tanh(sum) : sigmoid(sum);
      }
    }
    Some<width> cell = load_if<width>(a.has_cell, a.cell + at);
    Some<width> h = load_if<width>(a.has_h, a.h + at);
    if (alive(s.length, s.has_length, row, s.step)) {
#pragma unroll
      for (int k = 0; k < width; ++k) {
        cell.at[k] = gate[1].at[k] * cell.at[k] + gate[0].at[k] * gate[2].at[k];
        h.at[k] = gate[3].at[k] * tanh(cell.at[k]);
      }
    }
    store<width>(mine, gate[0]);
    store<width>(mine + s.hidden, gate[1]);
    store<width>(mine + 2 * s.hidden, gate[3]);
    store<width>(mine + 3 * s.hidden, gate[2]);
    store<width>(a.new_cell + at, cell);
    store<width>(a.new_h + at, h);
  });
}

// gates: as they were kept. g: the gradient of the step's state; dh: what the later steps add to it,
// dc: the gradient of the cell; both are overwritten by what the step before gets, dh by what goes
// past the product that follows. d: the gradient of what the products gave, in the order i, f, g, o.
struct LstmBackward {
  const T *gates, *cell, *before, *g;
  T *dh, *dc, *d;
  bool has_before, has_dh;
};

template <int width>
__device__ __forceinline__ void lstm_step_back(const LstmBackward& a, const Step& s) {
  each_unit<width>(s.batch, s.hidden, [=](index_t row, index_t unit) {
    const index_t at = row * s.hidden + unit;
    const T* kept = a.gates + row * 4 * s.hidden + unit;
    const bool live = alive(s.length, s.has_length, row, s.step);
    Some<width> dh = load<width>(a.g + at), dc = load<width>(a.dc + at), d[4];
    const Some<width> later = load_if<width>(a.has_dh, a.dh + at);
    const Some<width> i = load<width>(kept), f = load<width>(kept + s.hidden);
    const Some<width> o = load<width>(kept + 2 * s.hidden), z = load<width>(kept + 3 * s.hidden);
    const Some<width> cell = load<width>(a.cell + at);
    const Some<width> before = load_if<width>(a.has_before, a.before + at);
#pragma unroll
    for (int k = 0; k < width; ++k) {
      dh.at[k] += later.at[k];
      const A t = tanh(cell.at[k]);
      const A whole = dc.at[k] + dh.at[k] * o.at[k] * (A(1) - t * t);
      d[0].at[k] = live ? whole * z.at[k] * (i.at[k] - i.at[k] * i.at[k]) : A(0);
      d[1].at[k] = live ? whole * before.at[k] * (f.at[k] - f.at[k] * f.at[k]) : A(0);
      d[2].at[k] = live ? whole * i.at[k] * (A(1) - z.at[k] * z.at[k]) : A(0);
      d[3].at[k] = live ? dh.at[k] * t * (o.at[k] - o.at[k] * o.at[k]) : A(0);
      dc.at[k] = live ? whole * f.at[k] : dc.at[k];
      dh.at[k] = live ? A(0) : dh.at[k];
    }
#pragma unroll
    for (int q = 0; q < 4; ++q)
      store<width>(a.d + row * 4 * s.hidden + q * s.hidden + unit, d[q]);
    store<width>(a.dc + at, dc);
    if (s.has_length) store<width>(a.dh + at, dh);
  });
}

// --- GRU -----------------------------------------------------------------------------------------

// gates: what the input's product gave, in the order r, z, n; afterwards the gates. through: what the
// state's gave. state: what r multiplies.
struct GruForward {
  T* gates;
  const T *through, *bias_ih, *bias_hh, *h;
  T *state, *new_h;
  bool has_through, has_bias_ih, has_bias_hh, has_h;
};

template <int width>
__device__ __forceinline__ void gru_step(const GruForward& a, const Step& s) {
  each_unit<width>(s.batch, s.hidden, [=](index_t row, index_t unit) {
    const index_t at = row * s.hidden + unit, first = row * 3 * s.hidden + unit;
    Some<width> x[3], u[3];
#pragma unroll
    for (int q = 0; q < 3; ++q) {
      x[q] = load<width>(a.gates + first + q * s.hidden);
      u[q] = load_if<width>(a.has_through, a.through + first + q * s.hidden);
      const Some<width> b = load_if<width>(a.has_bias_ih, a.bias_ih + q * s.hidden + unit);
      const Some<width> c = load_if<width>(a.has_bias_hh, a.bias_hh + q * s.hidden + unit);
#pragma unroll
      for (int k = 0; k < width; ++k) {
        x[q].at[k] += b.at[k];
        u[q].at[k] += c.at[k];
      }
    }
    const Some<width> h = load_if<width>(a.has_h, a.h + at);
    const bool live = alive(s.length, s.has_length, row, s.step);
    Some<width> next;
#pragma unroll
    for (int k = 0; k < width; ++k) {
      const A r = sigmoid(x[0].at[k] + u[0].at[k]), z = sigmoid(x[1].at[k] + u[1].at[k]);
      const A n = tanh(x[2].at[k] + r * u[2].at[k]);
      x[0].at[k] = r;
      x[1].at[k] = z;
      x[2].at[k] = n;
      next.at[k] = live ? n + z * (h.at[k] - n) : h.at[k];
    }
#pragma unroll
    for (int q = 0; q < 3; ++q) store<width>(a.gates + first + q * s.hidden, x[q]);
    store<width>(a.state + at, u[2]);
    store<width>(a.new_h + at, next);
  });
}

// d and inner: the gradients of what the input's and the state's products gave, r, z, n. dh: as in
// LSTM, with the part that goes past the gates.
struct GruBackward {
  const T *gates, *state, *h, *g;
  T *dh, *d, *inner;
  bool has_dh;
};

template <int width>
__device__ __forceinline__ void gru_step_back(const GruBackward& a, const Step& s) {
  each_unit<width>(s.batch, s.hidden, [=](index_t row, index_t unit) {
    const index_t at = row * s.hidden + unit, first = row * 3 * s.hidden + unit;
    const bool live = alive(s.length, s.has_length, row, s.step);
    Some<width> dh = load<width>(a.g + at), d[3], inner;
    const Some<width> later = load_if<width>(a.has_dh, a.dh + at);
    const Some<width> r = load<width>(a.gates + first), z = load<width>(a.gates + first + s.hidden);
    const Some<width> n = load<width>(a.gates + first + 2 * s.hidden);
    const Some<width> h = load<width>(a.h + at), state = load<width>(a.state + at);
#pragma unroll
    for (int k = 0; k < width; ++k) {
      dh.at[k] += later.at[k];
      const A dn = dh.at[k] * (A(1) - z.at[k]) * (A(1) - n.at[k] * n.at[k]);
      const A dz = dh.at[k] * (h.at[k] - n.at[k]) * (z.at[k] - z.at[k] * z.at[k]);
      d[0].at[k] = live ? dn * state.at[k] * (r.at[k] - r.at[k] * r.at[k]) : A(0);
      d[1].at[k] = live ? dz : A(0);
      d[2].at[k] = live ? dn : A(0);
      inner.at[k] = live ? dn * r.at[k] : A(0);
      dh.at[k] = live ? dh.at[k] * z.at[k] : dh.at[k];
    }
#pragma unroll
    for (int q = 0; q < 3; ++q) {
      store<width>(a.d + first + q * s.hidden, d[q]);
      store<width>(a.inner + first + q * s.hidden, q == 2 ? inner : d[q]);
    }
    store<width>(a.dh + at, dh);
  });
}

// --- kernels -------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(256, 1)
lstm_forward(T* gates, const T* bias_ih, const T* bias_hh, const T* cell, const T* h, T* new_cell,
             T* new_h, const index_t* length, int has_bias_ih, int has_bias_hh, int has_cell,
             int has_h, int has_length, int packed, index_t step, index_t batch, index_t hidden) {
  const Step s = {length, has_length != 0, step, batch, hidden};
  const LstmForward a = {gates, bias_ih, bias_hh, cell, h, new_cell, new_h, has_bias_ih != 0,
                         has_bias_hh != 0, has_cell != 0, has_h != 0};
  if (packed)
    lstm_step<Pack<T>::size>(a, s);
  else
    lstm_step<1>(a, s);
}

extern "C" __global__ void __launch_bounds__(256, 1)
lstm_backward(const T* gates, const T* cell, const T* before, const T* g, T* dh, T* dc, T* d,
              const index_t* length, int has_before, int has_dh, int has_length, int packed,
              index_t step, index_t batch, index_t hidden) {
  const Step s = {length, has_length != 0, step, batch, hidden};
  const LstmBackward a = {gates, cell, before, g, dh, dc, d, has_before != 0, has_dh != 0};
  if (packed)
    lstm_step_back<Pack<T>::size>(a, s);
  else
    lstm_step_back<1>(a, s);
}

extern "C" __global__ void __launch_bounds__(256, 1)
gru_forward(T* gates, const T* through, const T* bias_ih, const T* bias_hh, const T* h, T* state,
            T* new_h, const index_t* length, int has_through, int has_bias_ih, int has_bias_hh,
            int has_h, int has_length, int packed, index_t step, index_t batch, index_t hidden) {
  const Step s = {length, has_length != 0, step, batch, hidden};
  const GruForward a = {gates, through, bias_ih, bias_hh, h, state, new_h, has_through != 0,
                        has_bias_ih != 0, has_bias_hh != 0, has_h != 0};
  if (packed)
    gru_step<Pack<T>::size>(a, s);
  else
    gru_step<1>(a, s);
}

extern "C" __global__ void __launch_bounds__(256, 1)
gru_backward(const T* gates, const T* state, const T* h, const T* g, T* dh, T* d, T* inner,
             const index_t* length, int has_dh, int has_length, int packed, index_t step,
             index_t batch, index_t hidden) {
  const Step s = {length, has_length != 0, step, batch, hidden};
  const GruBackward a = {gates, state, h, g, dh, d, inner, has_dh != 0};
  if (packed)
    gru_step_back<Pack<T>::size>(a, s);
  else
    gru_step_back<1>(a, s);
}
