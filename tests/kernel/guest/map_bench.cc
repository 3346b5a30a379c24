// How long Linux takes to map 512 MiB of guest memory into 1, 2 and 4 address spaces, and from how many threads it
// should be asked to. Figures and verdict: bench/README.md.
//
// Address spaces: one map each, as VMMs do it, against one map and copies of it (IOMMU_IOAS_COPY), over IOMMUs that
// each have a device attached. Threads: one call after the other, or from two threads, over memory that nobody has
// touched yet and over memory that is there. Every row is checked: what is pinned is what the way of mapping promises
// (VmPin), and all of it can be unmapped. The passing verdict says that the figures are of maps that work, not that
// they are good. Kernel command line: ioplan.rounds.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <future>
#include <vector>

#include "backends/iommufd/calls.h"
#include "tests/kernel/guest/boot.h"
#include "tests/kernel/guest/case.h"

namespace ioplan::kernel_test {

namespace {

using namespace iommufd;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20, kGuest = 512 * kMiB, kChunk = 64 * kMiB;
constexpr std::uint32_t kReadWrite =
    uapi::IOMMU_IOAS_MAP_FIXED_IOVA | uapi::IOMMU_IOAS_MAP_READABLE | uapi::IOMMU_IOAS_MAP_WRITEABLE;

enum class Pages : std::uint8_t { fresh, touched };

// Ends the bench where the kernel refuses what it must not.
struct Refused {
  const char* what;
  int errno_value;
};

template <class T>
T must(const char* what, const vfio::Reply<T>& reply) {
  if (!reply) throw Refused{what, reply.error().value};
  if constexpr (!std::is_void_v<T>) return *reply;
}

std::uint64_t pinned_kib() {
  const std::string status = read_file("/proc/self/status");
  const std::size_t at = status.find("VmPin:");
  return at == std::string::npos ? 0 : std::strtoull(status.c_str() + at + 6, nullptr, 10);
}

// Several address spaces of one context, each with a page table and a device.
class Spaces {
 public:
  Spaces(System& system, const std::vector<std::string>& devices)
      : system_(system), iommu_(Descriptor::owned(system, must("open /dev/iommu", system.open("/dev/iommu")))) {
    for (const std::string& cdev : devices) {
      files_.push_back(Descriptor::owned(system, must("open the device", system.open(cdev))));
      const ObjectId device = must("bind", vfio_bind(system, files_.back().get(), iommu()));
      ids_.push_back(must("allocate an IOAS", ioas_alloc(system, iommu())));
      const ObjectId hwpt = must("allocate a HWPT", hwpt_alloc(system, iommu(), device, ids_.back(), 0));
      must("attach", vfio_attach(system, files_.back().get(), hwpt));
    }
  }
  Spaces(const Spaces&) = delete;
  ~Spaces() { files_.clear(); }

  int iommu() const { return iommu_.get(); }
  ObjectId operator[](std::size_t i) const { return ids_[i]; }
  std::size_t size() const { return ids_.size(); }

  void unmap_all() {
    for (const ObjectId id : ids_) {
      if (must("unmap", ioas_unmap(system_, iommu(), id, 0, kGuest)) != kGuest) throw Refused{"unmap all of it", 0};
    }
    if (pinned_kib() != 0) throw Refused{"unpin", 0};
  }

 private:
  System& system_;
  Descriptor iommu_;
  std::vector<Descriptor> files_;
  std::vector<ObjectId> ids_;
};

Descriptor memory(System& system, Pages pages, std::uint64_t page) {
  Descriptor file = Descriptor::owned(system, must("memfd_create", system.memfd_create("bench", page)));
  must("ftruncate", system.ftruncate(file.get(), kGuest));
  if (pages == Pages::fresh) return file;
  const std::uint64_t address = must("mmap", system.mmap(file.get(), 0, kGuest));
  std::fill_n(reinterpret_cast<char*>(address), kGuest, 'x');  // NOLINT
  system.munmap(address, kGuest);
  return file;
}

void in_threads(unsigned threads, const std::function<void(std::uint64_t offset)>& on_chunk) {
  std::vector<std::future<void>> done;
  for (unsigned t = 0; t < threads; ++t) {
    done.push_back(std::async(threads == 1 ? std::launch::deferred : std::launch::async, [&, t] {
      for (std::uint64_t at = t * kChunk; at < kGuest; at += threads * kChunk) on_chunk(at);
    }));
  }
  for (std::future<void>& d : done) d.get();
}

// One way of mapping, timed over fresh or touched memory.
struct Way {
  std::string name;
  Pages pages;
  std::uint64_t page;
  std::uint64_t pinned;  // bytes afterwards
  std::function<void(Spaces&, int file)> map;
};

// Milliseconds: the least and the median of the rounds. `waits`: how often a thread went to sleep in a round, on a lock
// or for another thread, which does not depend on how busy the machine is.
struct Time {
  double least, median;
  long waits;
};

long sleeps() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  return used.ru_nvcsw;
}

Time measure(System& system, Spaces& spaces, const Way& way) {
  std::vector<double> times;
  long waits = 0;
  const auto rounds = static_cast<unsigned>(command_line_number("ioplan.rounds", 5));
  Descriptor file = memory(system, way.pages, way.page);
  for (unsigned round = 0; round < rounds; ++round) {
    if (round > 0 && way.pages == Pages::fresh) file = memory(system, way.pages, way.page);
    const long before = sleeps();
    const auto start = Clock::now();
    way.map(spaces, file.get());
    times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
    waits += sleeps() - before;
    if (pinned_kib() != way.pinned >> 10) throw Refused{"pin as promised", 0};
    spaces.unmap_all();
  }
  std::ranges::sort(times);
  return {times.front(), times[times.size() / 2], waits / rounds};
}

double report(System& system, Spaces& spaces, const Way& way) {
  const Time t = measure(system, spaces, way);
  std::printf("map_bench: %-44s least %7.1f ms, median %7.1f ms, %3ld waits, pinned %llu MiB\n", way.name.c_str(),
              t.least, t.median, t.waits, static_cast<unsigned long long>(way.pinned >> 20));
  return t.median;
}

std::string named(Pages pages, const char* what) {
  return std::string(pages == Pages::fresh ? "fresh memory, " : "touched memory, ") + what;
}

void compare_spaces(System& system, const std::vector<std::string>& devices) {
  for (const std::size_t count : {1U, 2U, 4U}) {
    Spaces spaces(system, {devices.begin(), devices.begin() + static_cast<std::ptrdiff_t>(count)});
    for (const Pages pages : {Pages::fresh, Pages::touched}) {
      const auto map_each = [&](Spaces& s, int file) {
        for (std::size_t i = 0; i < s.size(); ++i)
          must("map", ioas_map_file(system, s.iommu(), s[i], {0, kGuest, kReadWrite}, file, 0));
      };
      const auto map_once = [&](Spaces& s, int file) {
        must("map", ioas_map_file(system, s.iommu(), s[0], {0, kGuest, kReadWrite}, file, 0));
        for (std::size_t i = 1; i < s.size(); ++i)
          must("copy", ioas_copy(system, s.iommu(), s[i], {0, kGuest, kReadWrite}, s[0], 0));
      };
      const std::string spaces_text = std::to_string(count) + (count == 1 ? " space" : " spaces");
      const double each =
          report(system, spaces,
                 {named(pages, (spaces_text + ", a map each").c_str()), pages, 4096, kGuest * count, map_each});
      const double once = report(
          system, spaces, {named(pages, (spaces_text + ", pinned once").c_str()), pages, 4096, kGuest, map_once});
      std::printf("map_bench: ratio %zu %s: %.2f\n", count, pages == Pages::fresh ? "fresh" : "touched", each / once);
    }
  }
}

void populate(System& system, int file, unsigned threads) {
  const std::uint64_t address = must("mmap", system.mmap(file, 0, kGuest));
  in_threads(threads, [&](std::uint64_t at) {  // the test kernel has no madvise
    for (std::uint64_t byte = at; byte < at + kChunk; byte += 4096)
      *reinterpret_cast<volatile char*>(address + byte) = 1;  // NOLINT
  });
  system.munmap(address, kGuest);
}

void compare_threads(System& system, const std::string& device) {
  Spaces spaces(system, {device});
  for (const std::uint64_t page : {std::uint64_t{4096}, 2 * kMiB}) {
    const std::string of = page == 4096 ? "4KiB pages, " : "2MiB pages, ";
    for (const Pages pages : {Pages::fresh, Pages::touched}) {
      for (const unsigned threads : {1U, 2U}) {
        const auto in_chunks = [&](Spaces& s, int file) {
          in_threads(threads, [&](std::uint64_t at) {
            must("map", ioas_map_file(system, s.iommu(), s[0], {at, kChunk, kReadWrite}, file, at));
          });
        };
        const std::string what = of + "map from " + std::to_string(threads) + (threads == 1 ? " thread" : " threads");
        report(system, spaces, {named(pages, what.c_str()), pages, page, kGuest, in_chunks});
      }
    }
    for (const unsigned threads : {1U, 2U}) {
      const auto populated = [&](Spaces& s, int file) {
        populate(system, file, threads);
        must("map", ioas_map_file(system, s.iommu(), s[0], {0, kGuest, kReadWrite}, file, 0));
      };
      const std::string what = of + "touch from " + std::to_string(threads) + ", then one map";
      report(system, spaces, {named(Pages::fresh, what.c_str()), Pages::fresh, page, kGuest, populated});
    }
  }
}

// The cdevs of one device of every group, as far as vfio-pci has one.
std::vector<std::string> one_of_every_group(const Guest& guest) {
  std::vector<std::string> cdevs;
  std::vector<unsigned> groups;
  for (const unsigned i : guest.pci) {
    const Device& device = guest.host.devices[i];
    if (std::ranges::count(groups, *device.group) != 0) continue;
    groups.push_back(*device.group);
    const auto names = list_folder("/sys/bus/pci/devices/" + device.id + "/vfio-dev");
    cdevs.push_back("/dev/vfio/devices/" + names.at(0));
  }
  return cdevs;
}

}  // namespace

Outcome map_bench(const Guest& guest) {
  const auto system = linux_system();
  const auto cdevs = one_of_every_group(guest);
  if (cdevs.size() < 4) return {false, "four groups are needed"};
  try {
    compare_spaces(*system, cdevs);
    if (sysconf(_SC_NPROCESSORS_ONLN) > 1) {
      write_file("/proc/sys/vm/nr_hugepages", "264");
      compare_threads(*system, cdevs[0]);
    }
  } catch (const Refused& refused) {
    return {false,
            std::string("the kernel did not ") + refused.what + ": errno " + std::to_string(refused.errno_value)};
  }
  return {true, "every map was as long and pinned as much as it must"};
}

}  // namespace ioplan::kernel_test
