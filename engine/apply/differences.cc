// What is observed against what the plan predicts, field by field. Ranges, alignment, devices and table bytes depend on
// everything that a plan does, so they are compared only when it is complete; what a HWPT is, is fixed when it is made.

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "engine/apply/apply.h"
#include "engine/base/text.h"
#include "engine/model/features.h"

namespace ioplan {

namespace {

std::string text_of(const std::vector<Range>& ranges) { return format_ranges(ranges); }
std::string text_of(const Range& range) { return format_ranges({&range, 1}); }
std::string text_of(const std::string& name) { return name; }
std::string text_of(const std::vector<std::string>& names) {
  return names.empty() ? "nothing" : fmt::format("{}", fmt::join(names, " "));
}
std::string text_of(unsigned number) { return std::to_string(number); }
std::string text_of(bool value) { return value ? "true" : "false"; }
std::string text_of(PageTableFormat f) { return std::string(kPageTableFormatNames[static_cast<std::size_t>(f)]); }
std::string text_of(Driver d) { return std::string(name_of(d)); }
std::string text_of(HwptKind k) { return std::string(kHwptKindNames[static_cast<std::size_t>(k)]); }
std::string text_of(std::uint64_t bytes) { return format_size(bytes); }

std::string flags_text(std::uint8_t flags) {
  std::vector<std::string> names;
  for (std::size_t f = 0; f < kHwptFlagNames.size(); ++f) {
    if ((flags >> f & 1) != 0) names.emplace_back(kHwptFlagNames[f]);
  }
  return text_of(names);
}

std::uint64_t bytes_of(const PlannedIoas& ioas) {
  std::uint64_t bytes = 0;
  for (const MemoryRange& m : ioas.memory) bytes += m.gpa.extent() + 1;
  return bytes;
}

std::vector<Range> mapped_by(const PlannedIoas& ioas) {
  RangeSet mapped;
  for (const MemoryRange& m : ioas.memory) mapped.add(m.gpa);
  return {mapped.ranges().begin(), mapped.ranges().end()};
}

template <class Objects>
auto find_id(const Objects& objects, const std::string& id) {
  return std::ranges::find_if(objects, [&](const auto& o) { return o.id == id; });
}

// Whether memory may have come and gone before.
enum class Past : std::uint8_t { none, some };

// Of AMD's v1 tables Linux never takes back a level that they have grown (generic_pt's dynamic top): with a past, up to
// three tables stand on top of those that the memory needs.
constexpr std::uint64_t kMostGrown = 3 * 4096;

class Comparison {
 public:
  Comparison(const Plan& plan, const Observation& observed, bool complete, Past past)
      : plan_(plan), observed_(observed), complete_(complete), past_(past) {}

  std::vector<Difference> run() {
    for (const PlannedIoas& p : plan_.ioas) {
      if (const auto* seen = counterpart(p.id, observed_.ioas); seen != nullptr && complete_) compare(p, *seen);
    }
    for (const PlannedHwpt& p : plan_.hwpts) {
      if (const auto* seen = counterpart(p.id, observed_.hwpts)) compare(p, *seen);
    }
    report_strangers(plan_.ioas, observed_.ioas);
    report_strangers(plan_.hwpts, observed_.hwpts);
    if (complete_) compare_resources();
    if (complete_) compare_kvm_files();
    return std::move(found_);
  }

 private:
  template <class T>
  void same(const std::string& subject, std::string_view attribute, const T& predicted, const std::optional<T>& seen) {
    if (!seen || *seen == predicted) return;
    found_.push_back({subject, std::string(attribute), text_of(predicted), text_of(*seen)});
  }

  template <class Objects>
  auto counterpart(const std::string& id, const Objects& objects) -> const typename Objects::value_type* {
    const auto seen = find_id(objects, id);
    if (!met_.insert(id).second) found_.push_back({id, "id", "two of " + id, "one"});
    if (seen != objects.end()) return &*seen;
    if (complete_) found_.push_back({id, "id", id, "nothing"});
    return nullptr;
  }

  template <class Planned, class Observed>
  void report_strangers(const Planned& planned, const Observed& observed) {
    for (const auto& o : observed) {
      if (find_id(planned, o.id) == planned.end()) found_.push_back({o.id, "id", "nothing", o.id});
    }
  }

  void compare(const PlannedIoas& p, const ObservedIoas& o) {
    if (!is_among(p, o.ranges)) same(p.id, "ranges", p.ranges, o.ranges);
    same(p.id, "alignment", p.alignment, o.alignment);
    same(p.id, "memory", mapped_by(p), o.mapped);
  }

  // What a container offers depends on its history (engine/lifecycle/container_domains.h); a plan says what it surely does.
  bool is_among(const PlannedIoas& p, const std::optional<std::vector<Range>>& seen) const {
    if (plan_.interface != KernelInterface::type1 || !seen) return false;
    return std::ranges::all_of(p.ranges, [&](const Range& r) {
      return std::ranges::any_of(*seen, [&](const Range& s) { return s.contains(r); });
    });
  }

  void compare(const PlannedHwpt& p, const ObservedHwpt& o) {
    same(p.id, "ioas", p.ioas, std::optional(o.ioas));
    same(p.id, "allocator", p.allocator, o.allocator);
    same(p.id, "driver", p.driver, o.driver);
    same(p.id, "automatic", p.automatic, o.automatic);
    same(p.id, "stage", p.stage, o.stage);
    same(p.id, "format", p.format, o.format);
    same(p.id, "levels", p.levels, o.levels);
    same(p.id, "address_bits", p.address_bits, o.address_bits);
    same(p.id, "aperture", p.aperture, o.aperture);
    if (o.page_sizes && *o.page_sizes != p.page_sizes) {
      found_.push_back({p.id, "page_sizes", format_page_sizes(p.page_sizes), format_page_sizes(*o.page_sizes)});
    }
    if (o.flags) compare_flags(p, *o.flags);
    same(p.id, "enforce_cache_coherency", p.enforce_cache_coherency, o.enforce_cache_coherency);
    if (!complete_) return;
    if (p.automatic && o.devices) compare_first_attached(p, *o.devices);
    same(p.id, "devices", p.devices, o.devices);
    if (o.page_table_bytes && grown(p, *o.page_table_bytes)) {
      grown_bytes_ += *o.page_table_bytes - p.page_table_bytes;
    } else {
      same(p.id, "page_table_bytes", p.page_table_bytes, o.page_table_bytes);
    }
  }

  bool grown(const PlannedHwpt& p, std::uint64_t seen) const {
    const bool grows = past_ == Past::some && p.format == PageTableFormat::amdv1;
    return grows && seen > p.page_table_bytes && seen - p.page_table_bytes <= kMostGrown;
  }

  void compare_flags(const PlannedHwpt& p, std::uint8_t seen) {
    if (seen != p.flags) found_.push_back({p.id, "flags", flags_text(p.flags), flags_text(seen)});
    same(p.id, "kind", p.kind, std::optional((seen & kNestParent) != 0 ? HwptKind::nest_parent : HwptKind::paging));
  }

  // The kernel makes an automatic HWPT for a device that attaches, and tells nobody which.
  void compare_first_attached(const PlannedHwpt& p, const std::vector<std::string>& devices) {
    if (plan_.interface == KernelInterface::type1 && std::ranges::count(p.devices, p.allocator) == 0) return;  // it has left
    if (std::ranges::count(devices, p.allocator) == 0)
      found_.push_back({p.id, "allocator", p.allocator, text_of(devices)});
  }

  // The driver of a mediated device pins as it goes: an IOAS without a HWPT has nothing pinned to begin with.
  std::uint64_t pinned_by_hwpts() const {
    std::uint64_t bytes = plan_.resources.pinned_bytes;
    for (const PlannedIoas& ioas : plan_.ioas) {
      const bool pins = std::ranges::any_of(plan_.hwpts, [&](const PlannedHwpt& h) { return h.ioas == ioas.id; });
      if (!pins) bytes -= bytes_of(ioas);
    }
    return bytes;
  }

  void compare_resources() {
    same("resources", "pinned_bytes", pinned_by_hwpts(), observed_.pinned_bytes);
    std::uint64_t tables = 0;
    for (const ObservedHwpt& h : observed_.hwpts) {
      if (!h.page_table_bytes) return;
      tables += *h.page_table_bytes;
    }
    same("resources", "page_table_bytes", plan_.resources.page_table_bytes, std::optional(tables - grown_bytes_));
  }

  // Every device of a layout has its file with KVM, and so have those that are retained.
  void compare_kvm_files() {
    std::vector<std::string> files;
    for (const PlannedHwpt& h : plan_.hwpts) files.insert(files.end(), h.devices.begin(), h.devices.end());
    for (const PlannedIoas& ioas : plan_.ioas) {
      for (const auto& more : {mediated_devices(plan_, ioas.id), ioas.retained}) {
        files.insert(files.end(), more.begin(), more.end());
      }
    }
    std::ranges::sort(files);
    same("kvm", "files", files, observed_.kvm_files);
  }

  const Plan& plan_;
  const Observation& observed_;
  bool complete_;
  Past past_;
  std::uint64_t grown_bytes_ = 0;
  std::set<std::string> met_;
  std::vector<Difference> found_;
};

}  // namespace

std::vector<Difference> differences(const Plan& plan, const Observation& observed, Scope scope) {
  return Comparison(plan, observed, scope == Scope::complete, Past::none).run();
}

std::vector<Difference> drift(const Plan& layout, const Observation& observed) {
  std::vector<Difference> found = Comparison(layout, observed, true, Past::some).run();
  std::erase_if(found, [](const Difference& d) { return d.attribute == "allocator"; });
  return found;
}

}  // namespace ioplan
