// Counts the bytes that kernels read and write in given arrays.
//
// g++ -fsanitize=thread puts a call before each access to memory. Its library is not linked: the calls
// come here. Shared memory, stacks and everything else outside the arrays is not counted.
#include <stddef.h>
#include <stdint.h>

#include <vector>

namespace {

struct Range {
  uintptr_t begin, end;
  uint64_t bytes[2] = {0, 0};  // read, written
  std::vector<uint8_t> seen;   // of each byte: 1 if it was read, 2 if it was written
};

std::vector<Range> ranges;

void note(const void* pointer, size_t size, int way) {
  const uintptr_t at = uintptr_t(pointer);
  for (Range& range : ranges)
    if (at >= range.begin && at < range.end) {
      range.bytes[way] += size;
      for (size_t k = 0; k < size && at + k < range.end; ++k)
        range.seen[at + k - range.begin] |= 1 << way;
      return;
    }
}

}  // namespace

#define PUBLIC extern "C" __attribute__((visibility("default"), used)) void
#define HOOK extern "C" __attribute__((visibility("hidden"), used)) void
#define OF_SIZE(n)                                           \
  HOOK __tsan_read##n(void* p) { note(p, n, 0); }            \
  HOOK __tsan_write##n(void* p) { note(p, n, 1); }           \
  HOOK __tsan_unaligned_read##n(void* p) { note(p, n, 0); }  \
  HOOK __tsan_unaligned_write##n(void* p) { note(p, n, 1); }
OF_SIZE(1)
OF_SIZE(2)
OF_SIZE(4)
OF_SIZE(8)
OF_SIZE(16)
HOOK __tsan_read_range(void* p, size_t n) { note(p, n, 0); }
HOOK __tsan_write_range(void* p, size_t n) { note(p, n, 1); }
HOOK __tsan_func_entry(void*) {}
HOOK __tsan_func_exit() {}
HOOK __tsan_init() {}

// The arrays to count in: where they begin, and how many bytes they have.
PUBLIC cuda_on_cpu_count(const uintptr_t* begins, const uint64_t* sizes, int n) {
  ranges.clear();
  for (int i = 0; i < n; ++i) {
    ranges.push_back({begins[i], begins[i] + uintptr_t(sizes[i])});
    ranges.back().seen.resize(sizes[i]);
  }
}

// Of each array: bytes read and written, and how many different bytes these were.
PUBLIC cuda_on_cpu_counted(uint64_t* out) {
  for (const Range& range : ranges) {
    uint64_t distinct[2] = {0, 0};
    for (const uint8_t seen : range.seen) {
      distinct[0] += seen & 1;
      distinct[1] += seen >> 1 & 1;
    }
    *out++ = range.bytes[0];
    *out++ = range.bytes[1];
    *out++ = distinct[0];
    *out++ = distinct[1];
  }
  ranges.clear();
}
