"""Bugs in convolutions, for mutate.py."""

from __future__ import annotations

from mutation import Mutant

CONVOLUTION: list[Mutant] = [
    Mutant(
        "padding left out",
        "convolution.cu",
        "{ return o * stride - padding; }",
        "{ return o * stride; }",
    ),
    Mutant(
        "window missed", "convolution.cu", "(reach + stride - 1) / stride;", "reach / stride + 1;"
    ),
    Mutant(
        "window missed", "convolution.cu", "return o < results ? o : results - 1;", "return o - 1;"
    ),
    Mutant("missing guard", "convolution.cu", "return o < results ? o : results - 1;", "return o;"),
    Mutant(
        "dilation left out",
        "convolution.cu",
        "return from % dilation ? -1 : from / dilation;",
        "return from / dilation;",
    ),
    Mutant(
        "end of a row ignored",
        "convolution.cu",
        "if (q >= c.inner * c.count) return",
        "if (false) return",
    ),
    Mutant(
        "piece begins at 0",
        "convolution.cu",
        "Division w = divided(c.begin + example.rest, a.w.results)",
        "Division w = divided(example.rest, a.w.results)",
    ),
    Mutant(
        "padding read",
        "convolution.cu",
        "inside(z, a.d.size) && inside(y, a.h.size) ?",
        "inside(z, a.d.size) ?",
    ),
    Mutant(
        "padding read", "convolution.cu", "line[k] >= 0 && inside(i, a.w.size) ?", "line[k] >= 0 ?"
    ),
    Mutant(
        "padding read", "convolution.cu", "line >= 0 && inside(at.w + k, a.w.size) ?", "line >= 0 ?"
    ),
    Mutant(
        "padding read", "convolution.cu", "line >= 0 && inside(at.w + i, a.w.size) ?", "line >= 0 ?"
    ),
    Mutant(
        "wrong example",
        "convolution.cu",
        "int((example.quotient - first) * c.channels * a.size())",
        "int((example.quotient - first) * a.size())",
    ),
    Mutant(
        "wrong example",
        "convolution.cu",
        "(channel.quotient * c.inner + example.quotient) * c.channels + channel.rest;",
        "(channel.quotient * c.inner) * c.channels + channel.rest;",
    ),
    Mutant("line left", "convolution.cu", " && column + width <= a.w.results)", ")"),
    Mutant(
        "stride left out",
        "convolution.cu",
        "if (a.w.stride == 1 && a.w.dilation == 1 &&",
        "if (a.w.dilation == 1 &&",
    ),
    Mutant(
        "dilation left out",
        "convolution.cu",
        "if (a.w.stride == 1 && a.w.dilation == 1 &&",
        "if (a.w.stride == 1 &&",
    ),
    Mutant(
        "window not moved", "convolution.cu", "out.at[k] = out.at[k + 1];", "out.at[k] = out.at[k];"
    ),
    Mutant("wrong row", "convolution.cu", "++w, to += c.row)", "++w, to += c.count)"),
    Mutant(
        "wrong row",
        "convolution.cu",
        "channel.rest * a.taps() * c.row + q;",
        "channel.rest * c.row + q;",
    ),
    Mutant(
        "wrong tap",
        "convolution.cu",
        "(index_t(tap_d) * a.h.kernel + tap_h)",
        "(index_t(tap_d) * a.w.kernel + tap_h)",
    ),
    Mutant("missing guard", "convolution.cu", "if (tap_w >= 0) sum +=", "sum +="),
    Mutant(
        "missing guard",
        "convolution.cu",
        "      if (tap_h < 0) continue;\n",
        "",
    ),
    Mutant("no carry", "convolution.cu", "    h = 0;\n    if (++d", "    if (++d"),
    Mutant("no carry", "convolution.cu", "    d = 0;\n    ++plane;", "    d = 0;"),
    Mutant(
        "wrong example",
        "convolution.cu",
        "                  matrix.rest * a.results();",
        "                  matrix.rest;",
    ),
    Mutant(
        "wrong channel",
        "convolution.cu",
        "return bias ? sum + widen(bias[plane.rest]) : sum;",
        "return bias ? sum + widen(bias[matrix.rest]) : sum;",
    ),
    Mutant(
        "wrong place",
        "convolution.cu",
        "(plane.rest * examples + plane.quotient) * count",
        "(plane.quotient * examples + plane.rest) * count",
    ),
    Mutant(
        "piece begins at 0",
        "convolution.cu",
        "T* to = y + pack.quotient * positions + begin +",
        "T* to = y + pack.quotient * positions +",
    ),
    Mutant(
        "dropped term",
        "convolution.cu",
        "narrow<T>(in.at[j] + more);",
        "narrow<T>(in.at[j]);",
    ),
    Mutant(
        "wrong channel", "convolution.cu", "if (++channel == channels) channel = 0;", "++channel;"
    ),
    Mutant(
        "dropped tail",
        "convolution.cu",
        "        if (i + k < n) y[i + k] = out.at[k];",
        "        if (false) y[i + k] = out.at[k];",
    ),
    Mutant(
        "wrong tile",
        "convolution_3x3.cu",
        "int(item % outputs) * OUTPUTS);",
        "int(item % outputs));",
    ),
    Mutant(
        "wrong tile",
        "patches.cuh",
        "column = int(item % across) * WIDE;",
        "column = int(item % across) * HIGH;",
    ),
    Mutant(
        "wrong example",
        "patches.cuh",
        "return {item / down, int(",
        "return {item % down, int(",
    ),
    Mutant(
        "tile left out",
        "patches.cuh",
        "return (a.columns + WIDE - 1) / WIDE;",
        "return a.columns / WIDE;",
    ),
    Mutant(
        "wrong pair",
        "patches.cuh",
        "uint32(v[0].bits) | uint32(v[1].bits) << 16;",
        "uint32(v[0].bits) | uint32(v[0].bits) << 16;",
    ),
    Mutant("padding left out", "patches.cuh", "t.row - a.above + line,", "t.row - 1 + line,"),
    Mutant("padding left out", "patches.cuh", "t.column - a.before + j;", "t.column - 1 + j;"),
    Mutant(
        "padding read",
        "patches.cuh",
        "if (inside(row, a.height) && inside(column, a.width)) {",
        "if (inside(row, a.height)) {",
    ),
    Mutant(
        "padding read",
        "patches.cuh",
        "if (inside(row, a.height) && inside(column, a.width)) {",
        "if (inside(column, a.width)) {",
    ),
    Mutant("missing guard", "patches.cuh", "      if (from < a.channels)\n", ""),
    Mutant(
        "wrong side",
        "patches.cuh",
        "((i & 1) < a.before ? 0 : WIDE)",
        "((i & 1) < 1 ? 0 : WIDE)",
    ),
    Mutant(
        "lines left out",
        "patches.cuh",
        "i < 8 * LINES * (WIDE + 2); i += THREADS",
        "i < 8 * (LINES - 1) * (WIDE + 2); i += THREADS",
    ),
    Mutant("wrong tap", "convolution_3x3.cu", "(n >> 1) + tap / 3;", "(n >> 1) + tap % 3;"),
    Mutant(
        "wrong row",
        "convolution_3x3.cu",
        "memcpy(high, row + 8 * DEPTH, 8);",
        "memcpy(high, row, 8);",
    ),
    Mutant(
        "missing barrier",
        "convolution_3x3.cu",
        "column = 2 * (lane & 3);\n    __syncthreads();\n",
        "column = 2 * (lane & 3);\n",
    ),
    Mutant(
        "missing barrier",
        "convolution_3x3.cu",
        "    __syncthreads();\n    constexpr int width = 4;",
        "    constexpr int width = 4;",
    ),
    Mutant(
        "dropped term",
        "convolution_3x3.cu",
        "both<E>(at[m][n][2 * half] + more, at[m][n][2 * half + 1] + more)",
        "both<E>(at[m][n][2 * half] + more, at[m][n][2 * half + 1])",
    ),
    Mutant(
        "missing guard", "convolution_3x3.cu", "if (t.output + own >= a.outputs || row", "if (row"
    ),
    Mutant(
        "alignment ignored",
        "convolution_3x3.cu",
        "if (there >= 4 && (uint64(to) & 7u) == 0) {",
        "if ((uint64(to) & 7u) == 0) {",
    ),
    Mutant("missing guard", "convolution_3x3.cu", "if (k < there) to[k].bits", "to[k].bits"),
    Mutant(
        "wrong lane",
        "convolution_3x3.cu",
        "return threadIdx.x & 8; }",
        "return threadIdx.x >> 1 & 8; }",
    ),
    Mutant(
        "wrong tap",
        "convolution_3x3.cu",
        "x[(k + w) >> 2].at[(k + w) & 3];",
        "x[k >> 2].at[k & 3];",
    ),
    Mutant(
        "missing guard",
        "convolution_3x3.cu",
        "if (row >= a.rows || from >= a.columns) return;",
        "if (from >= a.columns) return;",
    ),
    Mutant(
        "missing guard", "convolution_3x3.cu", "      if (channel >= a.outputs) continue;\n", ""
    ),
    Mutant(
        "missing guard",
        "convolution_3x3.cu",
        "if (there > 0) store_pack(to, out);",
        "store_pack(to, out);",
    ),
    Mutant(
        "missing barrier",
        "convolution_3x3.cu",
        "      __syncthreads();  // the last stage, or the last tile, may still be being read\n",
        "",
    ),
    Mutant(
        "missing barrier",
        "convolution_3x3.cu",
        "      __syncthreads();\n      sums.add(weights, patch);",
        "      sums.add(weights, patch);",
    ),
    Mutant(
        "missing grid stride",
        "convolution_3x3.cu",
        "item < items; item += gridDim.x",
        "item < items; item += items",
    ),
    Mutant(
        "wrong stage",
        "convolution_3x3.cu",
        "(index_t(t.output / OUTPUTS) * stages + stage) * STAGE;",
        "(index_t(t.output / OUTPUTS) + stage) * STAGE;",
    ),
    Mutant(
        "taps not turned",
        "convolution_3x3.cu",
        "(c * outputs + o) * TAPS + (TAPS - 1 - at.tap)",
        "(c * outputs + o) * TAPS + at.tap",
    ),
    Mutant(
        "missing guard", "convolution_3x3.cu", "o < outputs && c < channels ?", "c < channels ?"
    ),
    Mutant("missing guard", "convolution_3x3.cu", "o < outputs && c < channels ?", "o < outputs ?"),
    Mutant(
        "missing barrier",
        "convolution_3x3_weight.cu",
        "      __syncthreads();  // the last tile may still be being read\n",
        "",
    ),
    Mutant(
        "missing barrier",
        "convolution_3x3_weight.cu",
        "      __syncthreads();\n      sums.add(gradients, patch);",
        "      sums.add(gradients, patch);",
    ),
    Mutant(
        "tile left out",
        "convolution_3x3_weight.cu",
        "item < items; item += parts)",
        "item < items; item += 2 * parts)",
    ),
    Mutant(
        "wrong place",
        "convolution_3x3_weight.cu",
        "* a.channels + channel + c) * TAPS + tap]",
        "* a.channels + c) * TAPS + tap]",
    ),
    Mutant(
        "missing guard",
        "convolution_3x3_weight.cu",
        "if (first + o < a.outputs && channel + c < a.channels)",
        "if (first + o < a.outputs)",
    ),
    Mutant(
        "missing guard",
        "convolution_3x3_weight.cu",
        "row < a.rows && column < a.columns)\n",
        "row < a.rows)\n",
    ),
    Mutant(
        "wrong rows",
        "convolution_3x3_weight.cu",
        "8 * (matrix & 1) + row) * Gradients",
        "8 * (matrix >> 1) + row) * Gradients",
    ),
    Mutant(
        "wrong rows",
        "convolution_3x3_weight.cu",
        "place(first + 8 * (matrix & 1) + row,",
        "place(first + row,",
    ),
    Mutant(
        "wrong channel",
        "convolution_3x3_weight.cu",
        "return lane_number() >> 3 << 1; }",
        "return lane_number() >> 3; }",
    ),
    Mutant(
        "wrong tap",
        "convolution_3x3_weight.cu",
        "x[c][(k + w) >> 2].at[(k + w) & 3];",
        "x[c][k >> 2].at[k & 3];",
    ),
    Mutant(
        "wrong tap",
        "convolution_3x3_weight.cu",
        "3 * warp_number() + w, at[w][k >> 1][k & 1]);",
        "w, at[w][k >> 1][k & 1]);",
    ),
    Mutant(
        "missing grid stride",
        "convolution_3x3_weight.cu",
        "block < parts * across; block += gridDim.x",
        "block < parts * across; block += parts * across",
    ),
    Mutant("alignment ignored", "convolution.cu", "<= n && aligned16(y)) {", "<= n) {"),
]
