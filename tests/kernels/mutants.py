"""The bugs that mutate.py plants, and the tests that have to find them."""

from __future__ import annotations

from kernels.mutants_attention import ATTENTION
from kernels.mutants_convolution import CONVOLUTION
from kernels.mutants_sorting import SORTING
from mutation import Mutant

#: The tests of each file, the quickest to tell first.
TESTS_OF: dict[str, list[str]] = {
    "common.cuh": ["test_softmax.py", "test_activation.py", "test_optimizer.py"],
    "rows.cuh": ["test_softmax.py", "test_cross_entropy.py", "test_normalization.py"],
    "elementwise.cuh": ["test_activation.py"],
    "functions.cuh": ["test_activation.py", "test_bias_activation.py"],
    "math.cuh": ["test_activation.py"],
    "place.cuh": ["test_bias_activation.py", "test_indexing.py"],
    "philox.cuh": ["test_random.py"],
    "many.cuh": ["test_optimizer.py"],
    "activation.cu": ["test_activation.py"],
    "bias_activation.cu": ["test_bias_activation.py"],
    "sums.cu": ["test_bias_activation.py", "test_normalization.py"],
    "softmax.cu": ["test_softmax.py"],
    "cross_entropy.cu": ["test_cross_entropy.py"],
    "normalization.cu": ["test_normalization.py"],
    "random.cu": ["test_random.py"],
    "dropout.cu": ["test_random.py"],
    "optimizer.cu": ["test_optimizer.py"],
    "gradient_norm.cu": ["test_optimizer.py"],
    "indexing.cu": ["test_indexing.py"],
    "sorting.cu": ["test_sorting.py", "test_indexing.py"],
    "pooling.cu": ["test_pooling.py"],
    "convolution.cu": ["test_convolution.py"],
    "convolution_3x3.cu": ["test_convolution_3x3.py"],
    "convolution_3x3_weight.cu": ["test_convolution_3x3.py"],
    "patches.cuh": ["test_convolution_3x3.py"],
    "recurrence.cu": ["test_recurrence.py"],
    "tiles.cuh": ["test_attention.py"],
    "attention.cuh": ["test_attention.py"],
    "attention.cu": ["test_attention.py"],
    "program.cuh": ["../program/test_cuda.py"],
}

MUTANTS: list[Mutant] = [
    # --- generated kernels
    Mutant(
        "wrong team",
        "program.cuh",
        "    return block_reduce<Op>(value);\n",
        "    return warp_reduce<Op>(value);\n",
    ),
    Mutant("wrong constant", "program.cuh", "    return R(1);\n", "    return R(0);\n"),
    Mutant("wrong place", "program.cuh", ".at[i & 3]", ".at[i & 1]"),
    Mutant(
        "missing barrier",
        "program.cuh",
        "  __syncthreads();  // the last call's results may still be being read\n",
        "",
    ),
    Mutant(
        "missing barrier",
        "program.cuh",
        "  partial[warp][lane] = value;\n  __syncthreads();\n",
        "  partial[warp][lane] = value;\n",
    ),
    Mutant("dropped part", "program.cuh", "w = 1; w < 32; ++w", "w = 1; w < 31; ++w"),
    Mutant("wrong step", "program.cuh", "uint64(i + mine * step) >> 2", "uint64(i + step) >> 2"),
    Mutant(
        "alignment ignored",
        "program.cuh",
        "if (((i - lane) | step) & 3) {",
        "if (step & 3) {",
    ),
    Mutant("wrong order", "program.cuh", "mine & apart ? lower : upper,", "lower,"),
    # --- reductions within a block
    Mutant(
        "missing barrier",
        "common.cuh",
        "  __syncthreads();  // the last call's results may still be being read\n",
        "",
    ),
    Mutant(
        "missing barrier",
        "common.cuh",
        "  if (lane == 0) partial[warp] = value;\n  __syncthreads();\n",
        "  if (lane == 0) partial[warp] = value;\n",
    ),
    Mutant(
        "wrong place",
        "common.cuh",
        "if (lane == 0) partial[warp] = value;",
        "partial[lane] = value;",
    ),
    Mutant(
        "dropped step", "common.cuh", "for (int offset = 16; offset", "for (int offset = 8; offset"
    ),
    Mutant("wrong identity", "common.cuh", "return -infinity<R>();", "return R(0);"),
    Mutant("wrong identity", "common.cuh", "    return R(0);\n", "    return R(1);\n"),
    Mutant("guard off by one", "common.cuh", "value = lane < warps ?", "value = lane <= warps ?"),
    Mutant("wrong rounding", "common.cuh", "bits + 0x7fffu + ((bits >> 16) & 1u)", "bits"),
    Mutant(
        "alignment ignored", "common.cuh", "return (uint64(pointer) & 15u) == 0;", "return true;"
    ),
    Mutant("wrong shift", "common.cuh", "uint32(x.bits) << 16", "uint32(x.bits) << 15"),
    # --- rows in registers
    Mutant("dropped step", "rows.cuh", "offset = size >> 1;", "offset = size >> 2;"),
    Mutant(
        "missing grid stride",
        "rows.cuh",
        "first < rows; first += step",
        "first < rows; first += rows",
    ),
    Mutant(
        "wrong stride",
        "rows.cuh",
        "(k / pack * size + thread) * pack + k % pack",
        "(k / pack * size + thread) * pack",
    ),
    Mutant(
        "wrong tile",
        "rows.cuh",
        "work(start, left < whole ? int(left) : whole);",
        "work(start, whole);",
    ),
    Mutant(
        "dropped term", "rows.cuh", "sum = sum * exp(most - greater) + part;", "sum = sum + part;"
    ),
    Mutant(
        "swapped operand", "rows.cuh", "sum * exp(most - greatest)", "sum * exp(greatest - most)"
    ),
    Mutant("dropped part", "rows.cuh", "b = lane < warps ?", "b = lane < 1 ?"),
    Mutant(
        "missing barrier",
        "rows.cuh",
        "    __syncthreads();  // the last call's sums may still be being read\n",
        "",
    ),
    Mutant(
        "missing barrier",
        "rows.cuh",
        "      partial[1][warp] = b;\n    }\n    __syncthreads();\n",
        "      partial[1][warp] = b;\n    }\n",
    ),
    Mutant(
        "part too long",
        "rows.cuh",
        "columns = all - begin < each ? all - begin : each;",
        "columns = each;",
    ),
    # --- element by element
    Mutant(
        "dropped tail",
        "elementwise.cuh",
        "    done = packs * size;\n  }\n  for (index_t i = done + thread_number(); i < n; i += thread_count())\n    y[i]",
        "    done = n;\n  }\n  for (index_t i = done + thread_number(); i < n; i += thread_count())\n    y[i]",
    ),
    Mutant(
        "alignment ignored",
        "elementwise.cuh",
        "if (aligned16(g) && aligned16(s) && aligned16(d))",
        "if (aligned16(g) && aligned16(d))",
    ),
    Mutant(
        "swapped operand",
        "elementwise.cuh",
        "d[i] = narrow<T>(function(widen(g[i]), widen(s[i])));",
        "d[i] = narrow<T>(function(widen(s[i]), widen(g[i])));",
    ),
    Mutant(
        "guard off by one",
        "elementwise.cuh",
        "i < n; i += thread_count())\n    y[i]",
        "i <= n; i += thread_count())\n    y[i]",
    ),
    Mutant(
        "wrong sign", "functions.cuh", "return g * y * (R(1) - y);", "return g * y * (R(1) + y);"
    ),
    Mutant("kink", "functions.cuh", "return y > R(0) ? g : R(0);", "return y >= R(0) ? g : R(0);"),
    Mutant(
        "select to product",
        "functions.cuh",
        "return y > R(0) ? g : R(0);",
        "return g * R(y > R(0));",
    ),
    Mutant("dropped term", "functions.cuh", "s * (R(1) + x * (R(1) - s))", "s * (R(1) + x)"),
    Mutant(
        "overflow",
        "math.cuh",
        "return relu(x) + log1p(exp(-fabs(x)));",
        "return log(R(1) + exp(x));",
    ),
    Mutant(
        "NaN lost",
        "math.cuh",
        "return x > R(0) || x != x ? x : R(0);",
        "return x > R(0) ? x : R(0);",
    ),
    Mutant("wrong constant", "math.cuh", "R(0.134145)", "R(0.044715)"),
    # --- bias and activation
    Mutant(
        "wrong stride",
        "place.cuh",
        "step = (gridDim.x / tiles) * down;",
        "step = gridDim.x * down;",
    ),
    Mutant(
        "wrong place",
        "place.cuh",
        "+ threadIdx.x % across) * width",
        "+ threadIdx.x / across) * width",
    ),
    Mutant("dropped term", "bias_activation.cu", "      sum[k] += d;\n", "      sum[k] = d;\n"),
    Mutant(
        "wrong index",
        "bias_activation.cu",
        "partial[at.row * columns + at.column + k] = sum[k];",
        "partial[at.row * columns + at.column] = sum[k];",
    ),
    Mutant(
        "bias left out", "bias_activation.cu", "widen(held.at[k]) + b[k];", "widen(held.at[k]);"
    ),
    Mutant(
        "missing guard",
        "bias_activation.cu",
        "  const Place at(width, across, tiles);\n  if (at.column >= columns) return;\n  A b[width];\n",
        "  const Place at(width, across, tiles);\n  A b[width];\n",
    ),
    Mutant(
        "missing barrier",
        "sums.cu",
        "  sums[warp][lane] = sum;\n  __syncthreads();\n",
        "  sums[warp][lane] = sum;\n",
    ),
    Mutant(
        "missing barrier",
        "sums.cu",
        "  __syncthreads();  // before the next columns overwrite the sums\n",
        "",
    ),
    Mutant("dropped part", "sums.cu", "lane < warps ?", "lane < warps - 1 ?"),
    Mutant(
        "rows left out",
        "bias_activation.cu",
        "r < rows; r += at.step) write<width>(y",
        "r + at.step < rows; r += at.step) write<width>(y",
    ),
    Mutant(
        "dropped term",
        "bias_activation.cu",
        "sum[k] += widen(in.at[k]);",
        "sum[k] = widen(in.at[k]);",
    ),
    Mutant(
        "wrong place",
        "bias_activation.cu",
        "row.at[k] = bias[at.column + k];",
        "row.at[k] = bias[at.column];",
    ),
    Mutant("missing guard", "sums.cu", "k < 32 && first + k < columns;", "k < 32;"),
    Mutant("missing grid stride", "sums.cu", "b += gridDim.x) {", "b += 2 * blocks) {"),
    Mutant("wrong array", "sums.cu", "second ? other : partial", "second ? partial : other"),
    # --- softmax and cross-entropy
    Mutant("wrong sign", "softmax.cu", "return y * (g - total);", "return y * (g + total);"),
    Mutant("dropped term", "softmax.cu", "return g - exp(y) * total;", "return g - y * total;"),
    Mutant("greatest not subtracted", "softmax.cu", "Op::keep(v[k] - of.most)", "Op::keep(v[k])"),
    Mutant(
        "not a number",
        "softmax.cu",
        "    if (found[p].first != -infinity<A>() || most == -infinity<A>())\n",
        "",
    ),
    Mutant(
        "dropped part", "softmax.cu", "p = 1; p < parts; ++p) most", "p = 2; p < parts; ++p) most"
    ),
    Mutant(
        "dropped term",
        "softmax.cu",
        "found[p].second * exp(found[p].first - most)",
        "found[p].second",
    ),
    Mutant(
        "wrong part",
        "softmax.cu",
        "at / parts * columns + part.begin, part.columns, at);",
        "at / parts * columns, part.columns, at);",
    ),
    Mutant("wrong sum", "softmax.cu", "total += sums[row * parts + p];", "total += sums[p];"),
    Mutant(
        "missing grid stride",
        "softmax.cu",
        "at < rows * parts; at += gridDim.x",
        "at < rows * parts; at += rows * parts",
    ),
    Mutant(
        "wrong tile",
        "softmax.cu",
        "load_tile<true>(y + begin + t * whole, columns - t * whole,",
        "load_tile<true>(y + begin, columns - t * whole,",
    ),
    Mutant(
        "tile counted once",
        "softmax.cu",
        "most = Max::combine(most, v[t][k]);",
        "most = Max::combine(most, v[0][k]);",
    ),
    Mutant(
        "guard off by one",
        "cross_entropy.cu",
        "return label >= 0 && label < columns;",
        "return label >= 0 && label <= columns;",
    ),
    Mutant(
        "missing guard",
        "cross_entropy.cu",
        "return label >= 0 && label < columns;",
        "return label < columns;",
    ),
    Mutant(
        "divisor left out",
        "cross_entropy.cu",
        "return widen(g[row * step]) / A(divisor);",
        "return widen(g[row * step]);",
    ),
    Mutant(
        "wrong index", "cross_entropy.cu", "  r[rows + row] = of.sum;\n", "  r[row + 1] = of.sum;\n"
    ),
    Mutant("wrong thread", "cross_entropy.cu", "if (live && team.thread == 0)", "if (live)"),
    Mutant(
        "divisor of one block's loss left out",
        "cross_entropy.cu",
        "loss[0] = narrow<T>(total / A(divisor));",
        "loss[0] = narrow<T>(total);",
    ),
    Mutant("one block taken for several", "cross_entropy.cu", "if (gridDim.x == 1)", "if (false)"),
    # --- norms
    Mutant(
        "padding counted", "normalization.cu", "if (within(k, n, team, packed)) sum +=", "sum +="
    ),
    Mutant(
        "wrong divisor",
        "normalization.cu",
        "const A s = A(1) / sqrt(squares / A(columns) + eps);",
        "const A s = A(1) / sqrt(squares / A(columns - 1) + eps);",
    ),
    Mutant(
        "dropped term",
        "normalization.cu",
        "s * (h[k] - average - z[k] * slope)",
        "s * (h[k] - z[k] * slope)",
    ),
    Mutant(
        "padding counted",
        "normalization.cu",
        "load_tile<packed>(b.x + at, part.n, team, m, z);",
        "load_tile<packed>(b.x + at, part.n, team, A(0), z);",
        survives="h, by which z is multiplied, is 0 there as well",
    ),
    Mutant(
        "wrong start",
        "normalization.cu",
        "load_tile<packed>(p.bias + start, n,",
        "load_tile<packed>(p.bias, n,",
    ),
    Mutant("mean left out", "normalization.cu", "z[k] = (z[k] - m) * s;", "z[k] = z[k] * s;"),
    Mutant(
        "dropped term",
        "normalization.cu",
        "squares += off * off * A(Part(columns, p, parts).columns);",
        "squares += off * off;",
    ),
    Mutant(
        "wrong weight",
        "normalization.cu",
        "mean += found[p].first * A(Part(columns, p, parts).columns);",
        "mean += found[p].first * A(columns / parts);",
    ),
    Mutant(
        "wrong start",
        "normalization.cu",
        "finish<packed>(v, part.begin, n,",
        "finish<packed>(v, 0, n,",
    ),
    Mutant("row counted twice", "normalization.cu", "    if (live) {\n", "    {\n"),
    Mutant("wrong factor", "normalization.cu", "? w[k] : held[k];", "? held[k] : w[k];"),
    Mutant(
        "dropped step",
        "normalization.cu",
        "offset = team.size; offset < 32;",
        "offset = team.size; offset < 16;",
    ),
    Mutant(
        "missing barrier",
        "normalization.cu",
        "  __syncthreads();\n  for (int c = threadIdx.x;",
        "  for (int c = threadIdx.x;",
    ),
    Mutant(
        "missing barrier",
        "normalization.cu",
        "  __syncthreads();  // before the next sums take the place of these\n",
        "",
    ),
    Mutant("dropped part", "normalization.cu", "for (int w = 1; w < 8;", "for (int w = 1; w < 7;"),
    Mutant(
        "wrong window",
        "normalization.cu",
        "const index_t to = strip * b.columns + part.begin;",
        "const index_t to = strip * b.columns;",
    ),
    Mutant(
        "wrong weight",
        "normalization.cu",
        "load_weight<packed>(b.weight + column, b.has_weight,",
        "load_weight<packed>(b.weight + start, b.has_weight,",
    ),
    Mutant(
        "dropped part",
        "normalization.cu",
        "for (index_t p = 1; p < parts; ++p)",
        "for (index_t p = 2; p < parts; ++p)",
    ),
    Mutant(
        "missing grid stride",
        "normalization.cu",
        "at < b.rows * b.parts; at += gridDim.x",
        "at < b.rows * b.parts; at += b.rows * b.parts",
    ),
    Mutant(
        "wrong strip",
        "normalization.cu",
        "blockIdx.x / windows, gridDim.x / windows);",
        "blockIdx.x / windows, gridDim.x);",
    ),
    # --- random numbers
    Mutant("wrong constant", "philox.cuh", "0xBB67AE85u", "0xBB67AE84u"),
    Mutant("round left out", "philox.cuh", "round < 10", "round < 9"),
    Mutant("index truncated", "philox.cuh", "c1 = uint32(counter >> 32)", "c1 = 0"),
    Mutant(
        "wrong word",
        "philox.cuh",
        "skip + j < 4 ? first.at[(skip + j) & 3] : second.at[(skip + j) & 3]",
        "first.at[(skip + j) & 3]",
    ),
    Mutant("guard missing", "philox.cuh", "if (i >= 0 && i < n) work(", "if (i < n) work("),
    Mutant("wrong branch", "random.cu", "quarter & 1 ? s : c,", "quarter & 1 ? c : s,"),
    Mutant("wrong sign", "random.cu", "(quarter + 1) & 2 ? -x", "quarter & 2 ? -x"),
    Mutant(
        "rest left out",
        "random.cu",
        "pi_low + third, pi * turn_low",
        "third, 0.0f",
        survives="less than the two units in the last place that normal numbers may differ by",
    ),
    Mutant(
        "log of 0",
        "random.cu",
        "float(word + 1), rest = float(int(word + 1 - uint32(v)));",
        "float(word), rest = float(int(word - uint32(v)));",
    ),
    Mutant(
        "digits lost",
        "random.cu",
        "  if (word >> 31) {",
        "  if (false) {",
        survives="the rest makes up for it, but for the greatest of all words",
    ),
    Mutant(
        "wrong bits",
        "random.cu",
        "uint64(upper) << 32 | lower;",
        "uint64(lower) << 32 | upper;",
    ),
    Mutant("guard missing", "random.cu", "if (first >= 0) work(", "work("),
    Mutant("guard missing", "random.cu", "if (first + 1 < n) work(", "work("),
    Mutant(
        "guard missing", "random.cu", "if (first + j >= 0 && first + j < n)", "if (first + j < n)"
    ),
    Mutant(
        "alignment ignored",
        "random.cu",
        "if (together && skip == 0 && first + 4 <= n) {",
        "if (skip == 0 && first + 4 <= n) {",
        survives="what is drawn into begins at the start of an allocation",
    ),
    Mutant("wrong block", "random.cu", "((position - odd) & ~uint64(3)) + odd", "position"),
    Mutant(
        "guard off by one",
        "dropout.cu",
        "word >= threshold ?",
        "word > threshold ?",
    ),
    Mutant("wrong selection", "dropout.cu", "word >= threshold ?", "word < threshold ?"),
    # --- optimizers and gradient norms
    Mutant(
        "dropped tail",
        "many.cuh",
        "n = left < CHUNK ? int(left) : CHUNK;",
        "n = left < CHUNK ? int(left) & ~3 : CHUNK;",
    ),
    Mutant(
        "wrong tensor",
        "many.cuh",
        "many.pointers[kinds * tensor + kind]",
        "many.pointers[tensor + kind]",
    ),
    Mutant(
        "wrong state",
        "optimizer.cu",
        "const index_t at = starts[chunk.tensor] + chunk.begin;",
        "const index_t at = starts[chunk.tensor];",
    ),
    Mutant(
        "alignment ignored",
        "optimizer.cu",
        "  if (aligned_quad(p) && aligned_quad(g)) {\n",
        "  if (aligned_quad(p)) {\n",
    ),
    Mutant(
        "step too early",
        "optimizer.cu",
        "if (atomicAdd(ticket, 1u) == gridDim.x - 1) {",
        "if (atomicAdd(ticket, 1u) == 0) {",
    ),
    Mutant("ticket not returned", "optimizer.cu", "      *ticket = 0;\n", ""),
    Mutant(
        "missing barrier",
        "optimizer.cu",
        "    numbers[1] = A(eps * root);\n  }\n  __syncthreads();\n",
        "    numbers[1] = A(eps * root);\n  }\n",
    ),
    Mutant(
        "swapped operand",
        "optimizer.cu",
        "nesterov ? e.first * memory + g : e.first",
        "nesterov ? g * memory + e.first : e.first",
    ),
    Mutant(
        "sign",
        "optimizer.cu",
        "    A g = maximize ? -e.g : e.g;\n    if (has_decay)",
        "    A g = e.g;\n    if (has_decay)",
    ),
    Mutant(
        "wrong bias correction",
        "optimizer.cu",
        "1 - pow(beta1, double(now))",
        "1 - pow(beta2, double(now))",
    ),
    Mutant(
        "NaN lost",
        "gradient_norm.cu",
        "const A factor = wanted > A(1) ? A(1) : wanted;",
        "const A factor = wanted < A(1) ? wanted : A(1);",
    ),
    Mutant(
        "dropped tail",
        "gradient_norm.cu",
        "for (int i = done + threadIdx.x; i < chunk.n; i += blockDim.x) sum +=",
        "for (int i = chunk.n; i < chunk.n; i += blockDim.x) sum +=",
    ),
    # --- rows by index
    Mutant("negative index", "indexing.cu", "    if (row < 0) row += rows;\n", ""),
    Mutant("wrong stride", "indexing.cu", "to = i * columns + at.column;", "to = i * columns;"),
    Mutant("run not closed", "indexing.cu", "      in_first = false;\n", ""),
    Mutant("sum not cleared", "indexing.cu", "      sum = Some<width>();\n", ""),
    Mutant(
        "run begins twice",
        "indexing.cu",
        "at.mine == 0 || of.sorted[begin - 1] != head;",
        "true;",
    ),
    Mutant(
        "run begins twice",
        "indexing.cu",
        "c == 0 || of.sorted[begin - 1] != head;",
        "true;",
    ),
    Mutant(
        "run too long", "indexing.cu", "next < stop && of.sorted[next] == tail;", "next < stop;"
    ),
    Mutant(
        "wrong place",
        "indexing.cu",
        "  if (at.mine == 0 && head == tail)\n    store_aside(of.first + aside, sum);\n  else if",
        "  if",
    ),
    Mutant(
        "edge forgotten",
        "indexing.cu",
        "  else if (of.sorted[stop - 1] == tail)",
        "  else if (false)",
    ),
    Mutant(
        "missing barrier",
        "indexing.cu",
        "    __syncthreads();\n    if (live) join_within",
        "    if (live) join_within",
    ),
    Mutant(
        "missing barrier",
        "indexing.cu",
        "    __syncthreads();  // before the next chunk's sums take the place of these\n",
        "",
    ),
    Mutant(
        "missing barrier",
        "indexing.cu",
        "    sum.put(parts[threadIdx.x]);\n    __syncthreads();\n",
        "    sum.put(parts[threadIdx.x]);\n",
    ),
    Mutant(
        "missing barrier",
        "indexing.cu",
        "    __syncthreads();  // before the next run's sums take the place of these\n",
        "",
    ),
    Mutant("search off by one", "indexing.cu", "high = middle - 1;", "high = middle - 2;"),
    Mutant(
        "dropped part",
        "indexing.cu",
        "for (int r = 0; r < at.down; ++r)",
        "for (int r = 0; r < 1; ++r)",
    ),
    Mutant("wrong stride", "indexing.cu", "q += at.down)", "q += 1)"),
    # --- pools
    Mutant("padding counted", "pooling.cu", "if (begin < 0) begin +=", "if (false) begin +="),
    Mutant(
        "guard off by one",
        "pooling.cu",
        "if (end > axis.size) end = axis.size;",
        "if (end > axis.size) end = axis.size + 1;",
    ),
    Mutant("wrong step", "pooling.cu", "(step - 1 - begin) / step * step;", "-begin;"),
    Mutant(
        "window missed",
        "pooling.cu",
        "(reach + stride - 1) / stride : 0;",
        "reach / stride + 1 : 0;",
    ),
    Mutant(
        "window missed",
        "pooling.cu",
        "return o < results ? o : results - 1;",
        "return o < results - 1 ? o : results - 2;",
    ),
    Mutant("missing guard", "pooling.cu", "return o < results ? o : results - 1;", "return o;"),
    Mutant(
        "dilation left out",
        "pooling.cu",
        "return dilation == 1 || (i - begin(o)) % dilation == 0;",
        "return true;",
    ),
    Mutant(
        "adaptive window cut short",
        "pooling.cu",
        "int((index_t(o + 1) * size + results - 1) / results);",
        "int(index_t(o + 1) * size / results);",
    ),
    Mutant(
        "adaptive window missed",
        "pooling.cu",
        "int((index_t(i + 1) * results + size - 1) / size) - 1;",
        "int(index_t(i + 1) * results / size) - 1;",
    ),
    Mutant("wrong identity", "pooling.cu", "best[k] = -infinity<A>();", "best[k] = A(0);"),
    Mutant(
        "NaN lost",
        "pooling.cu",
        "return x == y || (x != x && y != y);",
        "return x == y;",
    ),
    Mutant(
        "last in place of first",
        "pooling.cu",
        "other > mine : other < mine;",
        "other > mine : other > mine;",
    ),
    Mutant(
        "first NaN",
        "pooling.cu",
        "? other > mine : other < mine;",
        "? other < mine : other < mine;",
    ),
    Mutant("first NaN", "pooling.cu", "return most != most;", "return false;"),
    Mutant("every maximum counts", "pooling.cu", "if (before && same(", "if (false && same("),
    Mutant("wrong channel", "pooling.cu", "if (mine >> k & 1) sum[k]", "if (mine & 1) sum[k]"),
    Mutant(
        "padding left out",
        "pooling.cu",
        "const int limit = axis.size + axis.padding;",
        "const int limit = axis.size;",
    ),
    Mutant("padding counted", "pooling.cu", "(begin > 0 ? begin : 0)", "begin"),
    Mutant("divisor ignored", "pooling.cu", "divisor != A(0) ? divisor :", "false ? divisor :"),
    Mutant(
        "wrong axis", "pooling.cu", "at = divided(at.quotient, h);", "at = divided(at.quotient, w);"
    ),
    Mutant(
        "missing grid stride",
        "pooling.cu",
        "i < n; i += thread_count())\n    work(point(i, a.d.size,",
        "i < n; i += n)\n    work(point(i, a.d.size,",
    ),
    # --- recurrent layers
    Mutant("wrong function", "recurrence.cu", "q == 2 ? tanh(sum)", "q == 3 ? tanh(sum)"),
    Mutant(
        "wrong order",
        "recurrence.cu",
        "store<width>(mine + 2 * s.hidden, gate[3]);",
        "store<width>(mine + 2 * s.hidden, gate[2]);",
    ),
    Mutant(
        "end ignored", "recurrence.cu", "return !has_length || step < length[row];", "return true;"
    ),
    Mutant("end off by one", "recurrence.cu", "step < length[row]", "step <= length[row]"),
    Mutant(
        "not there",
        "recurrence.cu",
        "  if (there) return load<width>(from);",
        "  return load<width>(from);",
    ),
    Mutant(
        "bias left out",
        "recurrence.cu",
        "gate[q].at[k] + (b.at[k] + c.at[k])",
        "gate[q].at[k] + b.at[k]",
    ),
    Mutant("dropped term", "recurrence.cu", "(A(1) - t * t);", "A(1);"),
    Mutant(
        "dropped term",
        "recurrence.cu",
        "const A whole = dc.at[k] + dh.at[k]",
        "const A whole = dh.at[k]",
    ),
    Mutant(
        "gradient stops",
        "recurrence.cu",
        "live ? whole * f.at[k] : dc.at[k];",
        "live ? whole * f.at[k] : A(0);",
    ),
    Mutant("gradient stops", "recurrence.cu", "live ? A(0) : dh.at[k];", "A(0);"),
    Mutant("wrong gate", "recurrence.cu", "whole * before.at[k] *", "whole * cell.at[k] *"),
    Mutant("bias outside", "recurrence.cu", "u[q].at[k] += c.at[k];", "x[q].at[k] += c.at[k];"),
    Mutant(
        "swapped operand", "recurrence.cu", "n + z * (h.at[k] - n)", "h.at[k] + z * (n - h.at[k])"
    ),
    Mutant("wrong array", "recurrence.cu", "q == 2 ? inner : d[q]", "d[q]"),
    Mutant(
        "gradient stops",
        "recurrence.cu",
        "live ? dh.at[k] * z.at[k] : dh.at[k];",
        "live ? A(0) : dh.at[k];",
    ),
    Mutant(
        "wrong sign",
        "recurrence.cu",
        "dh.at[k] * (h.at[k] - n.at[k])",
        "dh.at[k] * (n.at[k] - h.at[k])",
    ),
    Mutant("missing grid stride", "recurrence.cu", "i < n; i += thread_count())", "i < n; i += n)"),
    Mutant("wrong place", "recurrence.cu", "i % across * width);", "i % across);"),
    *CONVOLUTION,
    *ATTENTION,
    *SORTING,
]
