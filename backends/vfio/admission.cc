#include "backends/vfio/admission.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "backends/vfio/guest_memory.h"
#include "engine/base/text.h"

namespace ioplan::vfio {

namespace {

std::string folder_of(std::uint64_t page) { return fmt::format("/sys/kernel/mm/hugepages/hugepages-{}kB", page >> 10); }

// A counter that is missing counts nothing.
std::uint64_t counter(System& system, std::uint64_t page, std::string_view name) {
  const auto text = system.read_file(fmt::format("{}/{}", folder_of(page), name));
  return text ? parse_integer(*text).value_or(0) : 0;
}

// Free and not promised to anybody; and those that the kernel would still make when asked (overcommit).
std::uint64_t available(System& system, std::uint64_t page) {
  const std::uint64_t free = counter(system, page, "free_hugepages"),
                      promised = counter(system, page, "resv_hugepages");
  const std::uint64_t extra = counter(system, page, "nr_overcommit_hugepages"),
                      made = counter(system, page, "surplus_hugepages");
  return free - std::min(free, promised) + (extra - std::min(extra, made));
}

Result<void> require_pages(System& system, std::uint64_t page, std::uint64_t needed) {
  const std::string size = format_size(page);
  if (!system.list(folder_of(page))) {
    return failure(fmt::format("this kernel has no huge pages of {}", size),
                   "plan with another `memory.backing`, or boot with `hugepagesz=` of that size if the CPU has it");
  }
  const std::uint64_t there = available(system, page);
  if (there >= needed) return {};
  const std::uint64_t total = counter(system, page, "nr_hugepages") + (needed - there);
  return failure(fmt::format("the plan needs {} free huge pages of {}, and {} are free", needed, size, there),
                 fmt::format("as root: echo {} > {}/nr_hugepages", total, folder_of(page)));
}

}  // namespace

std::uint64_t backing_page(System& system, const PlannedIoas& ioas) {
  return std::max(system.page_size(), ioas.backing);
}

Result<void> require_memlock(System& system, const Plan& plan) {
  return require_memlock(system, plan.resources.pinned_bytes);
}

Result<void> require_memlock(System& system, std::uint64_t needed) {
  const std::uint64_t limit = system.memlock_limit();
  if (needed <= limit || system.locks_without_limit()) return {};
  return failure(fmt::format("the plan pins {}, and this process may lock {} of memory (RLIMIT_MEMLOCK)",
                             format_size(needed), format_size(limit)),
                 fmt::format("`ulimit -l {}`, `LimitMEMLOCK={}` in a systemd unit, or CAP_IPC_LOCK",
                             (needed + 1023) / 1024, needed));
}

std::optional<std::uint64_t> locked_bytes(System& system) {
  constexpr std::string_view kKey = "\nVmLck:";
  const auto status = system.read_file("/proc/self/status");
  const std::size_t at = status ? status->find(kKey) : std::string::npos;
  if (at == std::string::npos) return std::nullopt;
  std::string_view digits = std::string_view(*status).substr(at + kKey.size());
  digits.remove_prefix(std::min(digits.find_first_not_of(" \t"), digits.size()));
  const auto kib = parse_integer(digits.substr(0, digits.find_first_of(" \n")));
  return kib ? std::optional(*kib << 10) : std::nullopt;
}

Result<void> require_memlock_of_process(System& system, const Plan& plan) {
  const std::uint64_t pinned = plan.resources.pinned_bytes, limit = system.memlock_limit();
  const std::uint64_t locked = locked_bytes(system).value_or(0);
  if (system.locks_without_limit() || (locked <= limit && pinned <= limit - locked)) return {};
  const std::uint64_t needed = pinned > ~std::uint64_t{0} - locked ? ~std::uint64_t{0} : locked + pinned;
  const std::string already = locked == 0 ? "" : fmt::format(", which has locked {},", format_size(locked));
  return failure(fmt::format("the plan pins {}, and this process{} may lock {} of memory (RLIMIT_MEMLOCK)",
                             format_size(pinned), already, format_size(limit)),
                 fmt::format("`ulimit -l {}`, `LimitMEMLOCK={}` in a systemd unit, or CAP_IPC_LOCK",
                             needed / 1024 + (needed % 1024 != 0 ? 1 : 0), needed));
}

Result<void> require_huge_pages(System& system, const Plan& plan) {
  std::map<std::uint64_t, std::uint64_t> needed;  // by page size
  std::set<std::pair<std::string, Range>> counted;
  for (const PlannedIoas& ioas : plan.ioas) {
    const std::uint64_t page = backing_page(system, ioas);
    if (page == system.page_size()) continue;
    for (const MemoryRange& m : ioas.memory) {
      const Range file = file_range(plan, ioas, m.gpa);
      if (!counted.emplace(ioas.vm, file).second) continue;
      const auto bytes = file_bytes(file, page);
      if (!bytes) return failure(fmt::format("{:#x}-{:#x}: no memory is that large", m.gpa.start, m.gpa.last));
      needed[page] += *bytes / page;
    }
  }
  for (const auto& [page, count] : needed) {
    if (auto enough = require_pages(system, page, count); !enough) return enough;
  }
  return {};
}

}  // namespace ioplan::vfio
