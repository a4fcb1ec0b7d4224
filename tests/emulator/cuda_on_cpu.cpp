// Runs the threads of a kernel's blocks as fibers; see cuda_on_cpu.h.
#include "cuda_on_cpu.h"

#include <cxxabi.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <mutex>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define CUDA_ON_CPU_ASAN 1
extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, size_t* size);
void __asan_unpoison_memory_region(const volatile void* start, size_t size);
}
#endif

#if !defined(__x86_64__) && !defined(__aarch64__)
#define CUDA_ON_CPU_UCONTEXT 1
#endif

// --- switching stacks ----------------------------------------------------------------------------

#if defined(CUDA_ON_CPU_UCONTEXT)
#include <ucontext.h>
#else
// Pushes the registers that a callee preserves, leaves the stack pointer in *from, takes up `to`.
extern "C" __attribute__((visibility("hidden"))) void cuda_on_cpu_switch(void** from, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.p2align 4
.globl cuda_on_cpu_switch
.hidden cuda_on_cpu_switch
.type cuda_on_cpu_switch, @function
cuda_on_cpu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_on_cpu_switch, .-cuda_on_cpu_switch
)");
#else
asm(R"(
.text
.p2align 4
.globl cuda_on_cpu_switch
.hidden cuda_on_cpu_switch
.type cuda_on_cpu_switch, %function
cuda_on_cpu_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size cuda_on_cpu_switch, .-cuda_on_cpu_switch
)");
#endif
#endif

namespace cuda_on_cpu {

Running running;

// A point at which execution can be taken up again.
#if defined(CUDA_ON_CPU_UCONTEXT)
using Point = ucontext_t;
void jump(Point& from, Point& to) { swapcontext(&from, &to); }
#else
using Point = void*;
void jump(Point& from, Point& to) { cuda_on_cpu_switch(&from, to); }
#endif

// The memory of a stack, with an inaccessible page below it: an overflow crashes, corrupts nothing.
class Stack {
 public:
#if defined(CUDA_ON_CPU_ASAN)
  static constexpr size_t size = 256 * 1024;  // the sanitizer's frames are several times larger
#else
  static constexpr size_t size = 64 * 1024;
#endif
  Stack() {
    void* found = mmap(nullptr, guard + size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED || mprotect(found, guard, PROT_NONE) != 0) {
      fprintf(stderr, "cuda_on_cpu: no memory for a stack\n");
      abort();
    }
    bottom_ = static_cast<char*>(found) + guard;
  }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  ~Stack() { munmap(bottom_ - guard, guard + size); }

  char* bottom() const { return bottom_; }

  // Sets it up to call `entry`, which must not return, when first jumped to.
  void prepare(void (*entry)()) {
#if defined(CUDA_ON_CPU_ASAN)
    __asan_unpoison_memory_region(bottom_, size);  // frames that an error left behind
#endif
#if defined(CUDA_ON_CPU_UCONTEXT)
    getcontext(&point);
    point.uc_stack.ss_sp = bottom_;
    point.uc_stack.ss_size = size;
    point.uc_link = nullptr;
    makecontext(&point, entry, 0);
#elif defined(__x86_64__)
    // Six registers, the address to return to, and none for entry itself to return to.
    void** top = reinterpret_cast<void**>(bottom_ + size) - 8;
    memset(top, 0, 8 * sizeof(void*));
    top[6] = reinterpret_cast<void*>(entry);
    point = top;
#else
    void** top = reinterpret_cast<void**>(bottom_ + size) - 20;
    memset(top, 0, 20 * sizeof(void*));
    top[11] = reinterpret_cast<void*>(entry);  // x30, where `ret` goes
    point = top;
#endif
    prepared = true;
  }

  Point point;
  bool prepared = false;

 private:
  static constexpr size_t guard = 64 * 1024;  // a page, whatever its size
  char* bottom_;
};

// --- threads, warps, the block -------------------------------------------------------------------

enum class State : uint8_t { fresh, ready, at_barrier, at_warp_operation, exited };

struct Thread {
  dim3 index;
  Stack* stack;
  State state;
  Kind kind;        // what it waits at, and in which line of the source
  int line;
  unsigned mask;    // of a warp's operation: the lanes that take part
  int source;       // of a shuffle: the lane to read
  uint64_t value;   // what it brings to a warp's operation
  uint64_t result;  // what it takes from it
};

constexpr int LARGEST_BLOCK = 1024;

struct Context {
  // the launch
  const char* kernel = "";
  int schedule = 0;
  void (*body)(void*) = nullptr;
  void* arguments = nullptr;
  std::string error;
  uint64_t switches = 0;

  // the block
  int threads = 0, exited = 0, at_barrier = 0;
  Thread thread[LARGEST_BLOCK];
  uint32_t ready_warps = 0;   // a bit per warp that has ready lanes
  uint32_t ready[32] = {};    // per warp a bit per lane: ready to go on
  uint32_t waiting[32] = {};  // per warp a bit per lane: waiting at a warp's operation

  // the scheduler
  Thread* current = nullptr;
  Point scheduler;
  int warp = 0, lane = 0;  // where a round has got to
  uint64_t random = 0;
  std::vector<Stack*> idle;
  std::vector<Stack*> stacks;
#if defined(CUDA_ON_CPU_ASAN)
  const void* scheduler_bottom = nullptr;
  size_t scheduler_size = 0;
#endif
};

Context context;
std::mutex one_launch;
#if defined(CUDA_ON_CPU_ASAN)
constexpr size_t kept_stacks = size_t(-1);  // the sanitizer goes on watching what is given back
#else
constexpr size_t kept_stacks = 128;
#endif

// A process may map 65,530 pieces of memory by default, a stack is two, and every library of kernels
// has stacks of its own.
void keep_stacks(size_t count) {
  if (context.stacks.size() <= count) return;
  for (size_t k = count; k < context.stacks.size(); k++) delete context.stacks[k];
  context.stacks.resize(count);
  context.idle = context.stacks;
}

int number(const Thread& thread) { return int(&thread - context.thread); }
int lane_of(const Thread& thread) { return number(thread) & 31; }
int warp_of(const Thread& thread) { return number(thread) >> 5; }

void make_ready(Thread& thread) {
  if (thread.state == State::at_warp_operation)
    context.waiting[warp_of(thread)] &= ~(1u << lane_of(thread));
  thread.state = State::ready;
  context.ready[warp_of(thread)] |= 1u << lane_of(thread);
  context.ready_warps |= 1u << warp_of(thread);
}

// From a thread to the scheduler, which comes back when the thread is to go on.
void leave() {
  Stack* stack = context.current->stack;
#if defined(CUDA_ON_CPU_ASAN)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, context.scheduler_bottom, context.scheduler_size);
#endif
  jump(stack->point, context.scheduler);
#if defined(CUDA_ON_CPU_ASAN)
  __sanitizer_finish_switch_fiber(fake, &context.scheduler_bottom, &context.scheduler_size);
#endif
}

// What runs on each stack: one thread after another. A thread keeps its stack from its start to its
// end, so that a block without barriers uses a single one.
void run_threads() {
#if defined(CUDA_ON_CPU_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, &context.scheduler_bottom, &context.scheduler_size);
#endif
  for (;;) {
    context.body(context.arguments);
    context.current->state = State::exited;
    leave();
  }
}

// From the scheduler to a thread, until that waits or ends.
void resume(Thread& thread) {
  if (thread.state == State::fresh) {
    if (context.idle.empty()) {
      context.stacks.push_back(new Stack);
      context.idle.push_back(context.stacks.back());
    }
    thread.stack = context.idle.back();
    context.idle.pop_back();
    if (!thread.stack->prepared) thread.stack->prepare(run_threads);
  }
  thread.state = State::ready;
  context.current = &thread;
  running.thread = &thread.index;
  running.lane = lane_of(thread);
  ++context.switches;
#if defined(CUDA_ON_CPU_ASAN)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, thread.stack->bottom(), Stack::size);
#endif
  jump(context.scheduler, thread.stack->point);
#if defined(CUDA_ON_CPU_ASAN)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  if (thread.state == State::exited) {
    ++context.exited;
    context.idle.push_back(thread.stack);
  }
}

// --- errors --------------------------------------------------------------------------------------

std::string text(const dim3& at) {
  return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) +
         ")";
}

std::string describe(const Thread& thread) {
  static const char* const names[] = {"", "__syncthreads", "__syncwarp", "a shuffle", "a vote"};
  const std::string who = "thread " + text(thread.index);
  if (thread.state == State::exited) return who + " has exited";
  std::string where = " waits at " + std::string(names[int(thread.kind)]);
  if (thread.state == State::at_warp_operation) {
    char mask[24];
    snprintf(mask, sizeof mask, " of lanes 0x%08x", thread.mask);
    where += mask;
  }
  return who + where + " in line " + std::to_string(thread.line);
}

void set_error(const std::string& what) {
  context.error = std::string(context.kernel) + ", block " + text(running.block) + ": " + what;
}

// Ends the launch; called by a thread.
[[noreturn]] void fail(const std::string& what) {
  set_error("thread " + text(context.current->index) + ": " + what);
  leave();
  abort();  // nobody takes this thread up again
}

[[noreturn]] void fail(const char* what) { fail(std::string(what)); }

// --- barriers and the operations of warps --------------------------------------------------------

// All threads of the block wait at the barrier: they go on, if it is the same one.
void release_barrier() {
  for (int i = 1; i < context.threads; ++i) {
    if (context.thread[i].line != context.thread[0].line) {
      set_error("threads wait at different barriers: " + describe(context.thread[0]) + ", " +
                describe(context.thread[i]));
      return;
    }
  }
  context.at_barrier = 0;
  for (int i = 0; i < context.threads; ++i) make_ready(context.thread[i]);
}

// No thread can go on, and not all wait at the barrier.
void diagnose() {
  for (int i = 0; i < context.threads; ++i) {
    const Thread& waiting = context.thread[i];
    if (waiting.state != State::at_warp_operation) continue;
    for (int lane = 0; lane < 32; ++lane) {
      if (!(waiting.mask >> lane & 1)) continue;
      const int other = (i & ~31) + lane;
      const std::string missing = "the warp's operation is not reached by all lanes it names: ";
      if (other >= context.threads) {
        set_error(missing + describe(waiting) + ", and the block has no lane " +
                  std::to_string(lane) + " in this warp");
        return;
      }
      const Thread& named = context.thread[other];
      if (named.state != State::at_warp_operation || named.kind != waiting.kind ||
          named.mask != waiting.mask) {
        set_error(missing + describe(waiting) + ", " + describe(named));
        return;
      }
    }
  }
  for (int i = 0; i < context.threads; ++i) {
    if (context.thread[i].state != State::at_barrier) continue;
    for (int j = 0; j < context.threads; ++j) {
      if (context.thread[j].state == State::at_barrier) continue;
      set_error("barrier divergence: " + describe(context.thread[i]) + ", " +
                describe(context.thread[j]));
      return;
    }
  }
}

// Exchanges what the lanes in `mask` have brought, once all of them are there.
void complete_warp_operation(const Thread& last) {
  const int warp = warp_of(last);
  const unsigned mask = last.mask;
  if ((context.waiting[warp] & mask) != mask) return;
  Thread* lanes = &context.thread[warp * 32];
  unsigned votes = 0;
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    if (lanes[i].kind != last.kind || lanes[i].mask != mask) return;
    if (lanes[i].value != 0) votes |= 1u << i;
  }
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    if (last.kind == Kind::vote) {
      lanes[i].result = votes;
    } else if (last.kind == Kind::shuffle) {
      // What a lane that takes no part would give is undefined: a NaN is likely to be noticed.
      const int source = lanes[i].source;
      lanes[i].result = mask >> source & 1 ? lanes[source].value : ~uint64_t(0);
    }
  }
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1) make_ready(lanes[i]);
}

void wait_at_barrier(int line) {
  Thread& thread = *context.current;
  thread.state = State::at_barrier;
  thread.kind = Kind::barrier;
  thread.line = line;
  ++context.at_barrier;
  leave();
}

uint64_t exchange(int line, Kind kind, unsigned mask, uint64_t value, int source) {
  Thread& thread = *context.current;
  if (!(mask >> lane_of(thread) & 1))
    fail("its lane is not in the mask it gives in line " + std::to_string(line));
  thread.state = State::at_warp_operation;
  thread.kind = kind;
  thread.line = line;
  thread.mask = mask;
  thread.value = value;
  thread.source = source;
  context.waiting[warp_of(thread)] |= 1u << lane_of(thread);
  complete_warp_operation(thread);
  leave();
  return thread.result;
}

// --- schedules -----------------------------------------------------------------------------------
//
// 0  each warp runs until it waits at a barrier; warps and lanes in order
// 1  likewise; warps, lanes and blocks backwards
// 2  all threads take turns, each to its next barrier or warp's operation, in order
// 3  likewise; warps, lanes and blocks backwards
// 4, 6, 8...  at each switch any ready thread, by chance; the number is the seed
// 5, 7, 9...  each warp runs until it waits at a barrier, by chance; blocks backwards

bool backwards() { return context.schedule & 1; }

uint32_t draw(uint32_t below) {
  context.random ^= context.random << 13;
  context.random ^= context.random >> 7;
  context.random ^= context.random << 17;
  return uint32_t((context.random >> 32) * below >> 32);
}

int lowest(uint32_t bits) { return __builtin_ctz(bits); }
int highest(uint32_t bits) { return 31 - __builtin_clz(bits); }
int any(uint32_t bits) {
  for (uint32_t skip = draw(__builtin_popcount(bits)); skip > 0; --skip) bits &= bits - 1;
  return lowest(bits);
}

// The next thread to run; there is a ready one.
Thread& choose() {
  int& warp = context.warp;
  int lane;
  switch (context.schedule) {
    case 0:
      warp = lowest(context.ready_warps);
      lane = lowest(context.ready[warp]);
      break;
    case 1:
      warp = highest(context.ready_warps);
      lane = highest(context.ready[warp]);
      break;
    case 2: {
      // Ready lanes from the last one on, then those of the next warp, around.
      uint32_t lanes = context.ready[warp] & uint32_t(~uint64_t(0) << context.lane);
      if (lanes == 0) {
        const uint32_t later = context.ready_warps & uint32_t(~uint64_t(1) << warp);
        warp = lowest(later ? later : context.ready_warps);
        lanes = context.ready[warp];
      }
      lane = lowest(lanes);
      context.lane = lane + 1;
      break;
    }
    case 3: {
      uint32_t lanes = context.ready[warp] & ((uint32_t(1) << context.lane) - 1);
      if (lanes == 0) {
        const uint32_t later = context.ready_warps & ((uint32_t(1) << warp) - 1);
        warp = highest(later ? later : context.ready_warps);
        lanes = context.ready[warp];
      }
      lane = highest(lanes);
      context.lane = lane;
      break;
    }
    default:
      if (!(context.schedule & 1) || context.ready[warp] == 0) warp = any(context.ready_warps);
      lane = any(context.ready[warp]);
  }
  context.ready[warp] &= ~(1u << lane);
  if (context.ready[warp] == 0) context.ready_warps &= ~(1u << warp);
  return context.thread[warp * 32 + lane];
}

// --- shared memory -------------------------------------------------------------------------------

#if defined(CUDA_ON_CPU_ASAN)
void find_shared_memory() {}
void poison_shared_memory() {}
#else
struct Segment {
  char* start = nullptr;
  size_t size = 0;
};

int find_segment(dl_phdr_info* module, size_t, void* found) {
  const uintptr_t own = reinterpret_cast<uintptr_t>(&context);
  bool here = false;
  const ElfW(Phdr)* local = nullptr;
  for (int i = 0; i < module->dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = module->dlpi_phdr[i];
    const uintptr_t start = module->dlpi_addr + header.p_vaddr;
    if (header.p_type == PT_LOAD && own >= start && own < start + header.p_memsz) here = true;
    if (header.p_type == PT_TLS) local = &header;
  }
  if (!here) return 0;
  if (local != nullptr && module->dlpi_tls_data != nullptr)
    *static_cast<Segment*>(found) = {static_cast<char*>(module->dlpi_tls_data), local->p_memsz};
  return 1;
}

Segment shared_memory;
thread_local volatile char in_segment;

// Once per launch: each of the system's threads has a segment of its own, from its first access on.
void find_shared_memory() {
  in_segment = 0;
  shared_memory = {};
  dl_iterate_phdr(find_segment, &shared_memory);
}
void poison_shared_memory() { memset(shared_memory.start, 0xff, shared_memory.size); }
#endif

// --- launching -----------------------------------------------------------------------------------

void run_block() {
  context.exited = context.at_barrier = 0;
  context.ready_warps = 0;
  memset(context.ready, 0, sizeof context.ready);
  memset(context.waiting, 0, sizeof context.waiting);
  context.warp = 0;
  context.lane = context.schedule == 3 ? 0 : 32;
  if (context.schedule == 2) context.warp = 31;  // so that the first choice begins a round
  for (int i = 0; i < context.threads; ++i) {
    make_ready(context.thread[i]);
    context.thread[i].state = State::fresh;
  }
  poison_shared_memory();
  for (;;) {
    while (context.ready_warps != 0) {
      resume(choose());
      if (!context.error.empty()) return;
    }
    if (context.exited == context.threads) return;
    if (context.at_barrier == context.threads) {
      release_barrier();
    } else {
      diagnose();
    }
    if (!context.error.empty()) return;
  }
}

std::string refused(const unsigned* grid, const unsigned* block, unsigned largest) {
  const uint64_t threads = uint64_t(block[0]) * block[1] * block[2];
  const std::string shape = "a grid of " + text({grid[0], grid[1], grid[2]}) + " blocks of " +
                            text({block[0], block[1], block[2]}) + " threads: ";
  if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0) return shape + "the grid is empty";
  if (threads == 0) return shape + "the block is empty";
  if (grid[0] > 0x7fffffffu) return shape + "grid x is over 2147483647";
  if (grid[1] > 65535 || grid[2] > 65535) return shape + "grid y or z is over 65535";
  if (block[0] > 1024 || block[1] > 1024) return shape + "block x or y is over 1024";
  if (block[2] > 64) return shape + "block z is over 64";
  if (threads > unsigned(LARGEST_BLOCK)) return shape + "a block has over 1024 threads";
  if (threads > largest)
    return shape + "a block has over the " + std::to_string(largest) + " of __launch_bounds__";
  return "";
}

// Runs `body(arguments)` once per thread, or writes why it did not.
void launch(const char* kernel, Request& request, unsigned largest, void (*body)(void*),
            void* arguments) {
  const std::lock_guard<std::mutex> lock(one_launch);
  const unsigned* shape = request.shape;
  context.kernel = kernel;
  context.error = refused(shape, shape + 3, largest);
  context.switches = 0;
  if (!context.error.empty()) {
    snprintf(request.error, request.room, "%s: invalid configuration: %s", kernel,
             context.error.c_str());
    return;
  }
  running.grid_size = {shape[0], shape[1], shape[2]};
  running.block_size = {shape[3], shape[4], shape[5]};
  context.threads = int(shape[3] * shape[4] * shape[5]);
  context.schedule = request.schedule;
  context.random = 0x9e3779b97f4a7c15u * uint64_t(request.schedule + 1);
  context.body = body;
  context.arguments = arguments;
  find_shared_memory();
  for (int i = 0; i < context.threads; ++i) {
    context.thread[i].index = {i % shape[3], i / shape[3] % shape[4], i / shape[3] / shape[4]};
    context.thread[i].state = State::fresh;
  }
  const uint64_t blocks = uint64_t(shape[0]) * shape[1] * shape[2];
  for (uint64_t i = 0; i < blocks && context.error.empty(); ++i) {
    const uint64_t at = backwards() ? blocks - 1 - i : i;
    running.block = {unsigned(at % shape[0]), unsigned(at / shape[0] % shape[1]),
                           unsigned(at / shape[0] / shape[1])};
    run_block();
  }
  if (!context.error.empty()) {
    // Some threads are left in the middle: their stacks begin anew.
    context.idle = context.stacks;
    for (Stack* stack : context.stacks) stack->prepared = false;
  }
  keep_stacks(kept_stacks);
  if (context.error.empty()) return;
  snprintf(request.error, request.room, "%s", context.error.c_str());
}

std::string demangled(const std::type_info& type) {
  int status = 0;
  char* name = abi::__cxa_demangle(type.name(), nullptr, nullptr, &status);
  const std::string found = status == 0 ? name : type.name();
  free(name);
  return found;
}

const char* names(const std::type_info* const* types, int count) {
  std::string found;
  for (int i = 0; i < count; ++i) found += demangled(*types[i]) + "\n";
  return strdup(found.c_str());
}

}  // namespace cuda_on_cpu

// How often the last launch has gone from the scheduler to a thread.
CUDA_ON_CPU_PUBLIC unsigned long long cuda_on_cpu_switches() {
  return cuda_on_cpu::context.switches;
}

// Gives back the stacks of a library that has not been in use for a while; see emulator.py.
CUDA_ON_CPU_PUBLIC void cuda_on_cpu_release() {
#if !defined(CUDA_ON_CPU_ASAN)
  const std::lock_guard<std::mutex> lock(cuda_on_cpu::one_launch);
  cuda_on_cpu::keep_stacks(0);
#endif
}

// --- undefined behaviour, found by the compiler's checks -----------------------------------------
//
// g++ calls these where an access is misaligned, an index leaves its array, and so on. They stand
// in for its library, and end the launch with an error in place of a line on stderr. In a run with
// the sanitizers the library itself is linked.

#if defined(CUDA_ON_CPU_CHECKS)
namespace cuda_on_cpu {
struct Place {  // how each of the descriptions begins that g++ passes
  const char* file;
  uint32_t line, column;
};
struct Mismatch {
  Place place;
  void* type;
  unsigned char log_alignment, access;
};
[[noreturn]] void fail_at(const void* description, const std::string& what) {
  const Place& place = *static_cast<const Place*>(description);
  fail(what + " in line " + std::to_string(place.line));
}
}  // namespace cuda_on_cpu
#define CUDA_ON_CPU_CHECK __attribute__((visibility("hidden"), used)) void
extern "C" {
CUDA_ON_CPU_CHECK __ubsan_handle_type_mismatch_v1(void* data, uintptr_t pointer) {
  const auto& mismatch = *static_cast<const cuda_on_cpu::Mismatch*>(data);
  if (pointer == 0) cuda_on_cpu::fail_at(data, "a null pointer is used");
  cuda_on_cpu::fail_at(data, "a misaligned access, where a multiple of " +
                                 std::to_string(1 << mismatch.log_alignment) + " is needed,");
}
CUDA_ON_CPU_CHECK __ubsan_handle_out_of_bounds(void* data, uintptr_t index) {
  cuda_on_cpu::fail_at(data, "index " + std::to_string(intptr_t(index)) + " is outside the array");
}
CUDA_ON_CPU_CHECK __ubsan_handle_divrem_overflow(void* data, uintptr_t, uintptr_t) {
  cuda_on_cpu::fail_at(data, "a division by zero or an overflowing one");
}
CUDA_ON_CPU_CHECK __ubsan_handle_shift_out_of_bounds(void* data, uintptr_t, uintptr_t) {
  cuda_on_cpu::fail_at(data, "a shift by as many bits as there are, or of a negative number");
}
CUDA_ON_CPU_CHECK __ubsan_handle_add_overflow(void* data, uintptr_t, uintptr_t) {
  cuda_on_cpu::fail_at(data, "a signed sum overflows");
}
CUDA_ON_CPU_CHECK __ubsan_handle_sub_overflow(void* data, uintptr_t, uintptr_t) {
  cuda_on_cpu::fail_at(data, "a signed difference overflows");
}
CUDA_ON_CPU_CHECK __ubsan_handle_mul_overflow(void* data, uintptr_t, uintptr_t) {
  cuda_on_cpu::fail_at(data, "a signed product overflows");
}
CUDA_ON_CPU_CHECK __ubsan_handle_negate_overflow(void* data, uintptr_t) {
  cuda_on_cpu::fail_at(data, "a signed negation overflows");
}
}
#undef CUDA_ON_CPU_CHECK
#endif
