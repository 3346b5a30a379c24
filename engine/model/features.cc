#include "engine/model/features.h"


#include <algorithm>
#include <bit>
#include <functional>
#include <set>

#include "engine/base/text.h"

namespace ioplan {

namespace {

std::uint64_t smallest_page(const PlannedHwpt& h) { return h.page_sizes & (~h.page_sizes + 1); }

// The features of one VM's HWPTs. Each is due to the allocators of those HWPTs that make it what it is.
class Features {
 public:
  Features(const Plan& plan, const PlannedIoas& ioas) : plan_(plan), ioas_(ioas) {
    for (const PlannedHwpt& h : plan.hwpts) {
      if (h.ioas == ioas.id) hwpts_.push_back(&h);
    }
  }

  std::vector<FrozenFeature> list() {
    if (hwpts_.empty()) return {};
    add_page_sizes();
    add_extreme(
        "address_bits", [](const PlannedHwpt& h) { return std::uint64_t{h.address_bits}; }, std::less<>(),
        [](std::uint64_t bits) { return std::to_string(bits); });
    add_extreme("granule", smallest_page, std::greater<>(), format_size);
    add_dirty_tracking();
    add_coherency();
    return std::move(found_);
  }

 private:
  void add(std::string feature, std::string value, std::vector<std::string> because) {
    std::ranges::sort(because, natural_less);
    because.erase(std::unique(because.begin(), because.end()), because.end());
    found_.push_back({ioas_.vm, std::move(feature), std::move(value), std::move(because)});
  }

  template <class Predicate>
  std::vector<std::string> allocators(Predicate which) const {
    std::vector<std::string> ids;
    for (const PlannedHwpt* h : hwpts_) {
      if (which(*h)) ids.push_back(h->allocator);
    }
    return ids;
  }

  void add_page_sizes() {
    std::uint64_t all = ~std::uint64_t{0}, any = 0;
    for (const PlannedHwpt* h : hwpts_) {
      all &= h->page_sizes;
      any |= h->page_sizes;
    }
    const bool narrowed = all != any;
    add("page_sizes", format_page_sizes(all),
        allocators([&](const PlannedHwpt& h) { return !narrowed || h.page_sizes != any; }));
  }

  template <class Value, class Better, class Show>
  void add_extreme(std::string feature, Value value, Better better, Show show) {
    std::uint64_t extreme = value(*hwpts_.front());
    for (const PlannedHwpt* h : hwpts_) {
      if (better(value(*h), extreme)) extreme = value(*h);
    }
    add(std::move(feature), show(extreme), allocators([&](const PlannedHwpt& h) { return value(h) == extreme; }));
  }

  void add_dirty_tracking() {
    const auto tracks = [](const PlannedHwpt& h) { return (h.flags & kDirtyTracking) != 0; };
    const bool all = std::ranges::all_of(hwpts_, [&](const PlannedHwpt* h) { return tracks(*h); });
    add("dirty_tracking", all ? "true" : "false", allocators([&](const PlannedHwpt& h) { return tracks(h) == all; }));
  }

  // Of the devices that make KVM non-coherent those of this VM.
  void add_coherency() {
    std::set<std::string> own(ioas_.retained.begin(), ioas_.retained.end());
    for (const std::string& mdev : mediated_devices(plan_, ioas_.id)) own.insert(mdev);
    for (const PlannedHwpt* h : hwpts_) own.insert(h->devices.begin(), h->devices.end());
    std::vector<std::string> because;
    for (const std::string& d : plan_.kvm.because) {
      if (own.contains(d)) because.push_back(d);
    }
    const bool noncoherent = !because.empty();
    found_.push_back({ioas_.vm, "noncoherent_dma", noncoherent ? "true" : "false", std::move(because)});
  }

  const Plan& plan_;
  const PlannedIoas& ioas_;
  std::vector<const PlannedHwpt*> hwpts_;
  std::vector<FrozenFeature> found_;
};

const FrozenFeature* find_feature(const std::vector<FrozenFeature>& list, const FrozenFeature& wanted) {
  const auto it = std::ranges::find_if(
      list, [&](const FrozenFeature& f) { return f.vm == wanted.vm && f.feature == wanted.feature; });
  return it == list.end() ? nullptr : &*it;
}

}  // namespace

std::vector<FrozenFeature> features_of(const Plan& plan) {
  std::vector<FrozenFeature> all;
  for (const PlannedIoas& ioas : plan.ioas) {
    for (FrozenFeature& f : Features(plan, ioas).list()) all.push_back(std::move(f));
  }
  return all;
}

std::vector<FeatureChange> feature_changes(const std::vector<FrozenFeature>& before,
                                           const std::vector<FrozenFeature>& after) {
  std::vector<FeatureChange> changes;
  for (const FrozenFeature& f : before) {
    const FrozenFeature* now = find_feature(after, f);
    const std::string value = now == nullptr ? "none" : now->value;
    if (value != f.value) changes.push_back({f.vm, f.feature, f.value, value});
  }
  for (const FrozenFeature& f : after) {
    if (find_feature(before, f) == nullptr) changes.push_back({f.vm, f.feature, "none", f.value});
  }
  return changes;
}

std::vector<std::string> mediated_devices(const Plan& plan, std::string_view ioas) {
  std::vector<std::string> found;
  for (const Step& s : plan.steps) {
    if (s.kind == StepKind::attach_ioas && s.ioas == ioas && is_uuid(s.device)) found.push_back(s.device);
  }
  std::ranges::sort(found);
  return found;
}

const PlannedHwpt* home_of(const Plan& plan, std::string_view device) {
  for (const PlannedHwpt& h : plan.hwpts) {
    if (std::ranges::find(h.devices, device) != h.devices.end()) return &h;
  }
  return nullptr;
}

}  // namespace ioplan
