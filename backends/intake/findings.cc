#include "backends/intake/findings.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <tuple>

#include "engine/base/text.h"

namespace ioplan::intake {

namespace {

// ---------------------------------------------------------------- values as text

std::string text_of(const ReservedRegion& r) {
  return fmt::format("{:#x}-{:#x} {}", r.range.start, r.range.last, kReservedTypeNames[static_cast<std::size_t>(r.type)]);
}
std::string text_of(const Bar& b) { return fmt::format("{}: {}", b.index, format_size(b.size)); }
std::string text_of(const HugePages& p) { return fmt::format("{} of {}", p.total, format_size(p.size)); }
std::string text_of(const Claim& c) { return fmt::format("`{}` in {}", c.value, c.source); }

template <class T>
std::string text_of(const std::vector<T>& items) {
  std::string text;
  for (const T& item : items) text += (text.empty() ? "" : ", ") + text_of(item);
  return items.empty() ? "none" : text;
}

// What a number counts is not known here; registers are what sources disagree about.
std::string text_of(std::monostate) { return "is there"; }
std::string text_of(std::uint64_t v) { return v < 10 ? std::to_string(v) : format_hex(v); }
std::string text_of(const std::string& v) { return escaped(v); }
std::string text_of(const Value& value) {
  return std::visit([](const auto& v) { return text_of(v); }, value);
}

std::string with(std::string text, std::string_view what, std::string_view instead) {
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += instead.size()) {
    text.replace(at, what.size(), instead);
  }
  return text;
}

// ---------------------------------------------------------------- what a document can hold

using Refusal = std::optional<std::string>;  // why not

constexpr std::size_t kMostRegions = 256;

Refusal refusal(const std::string& words) {
  if (words.empty()) return "it is empty";
  return is_one_line(words) ? Refusal() : "it is not one line of UTF-8 text";
}

Refusal refusal(const std::vector<ReservedRegion>& regions) {
  if (regions.size() > kMostRegions) return fmt::format("{} regions are more than {}", regions.size(), kMostRegions);
  for (std::size_t i = 0; i < regions.size(); ++i) {
    if (regions[i].range.last < regions[i].range.start) return text_of(regions[i]) + " ends before it starts";
    for (std::size_t j = 0; j < i; ++j) {
      if (regions[i].type == regions[j].type && regions[i].range.overlaps(regions[j].range)) {
        return text_of(regions[i]) + " overlaps " + text_of(regions[j]);
      }
    }
  }
  return {};
}

Refusal refusal(const std::vector<Bar>& bars) {
  for (std::size_t i = 0; i < bars.size(); ++i) {
    if (bars[i].index > 5) return fmt::format("there is no BAR {}", bars[i].index);
    if (!std::has_single_bit(bars[i].size)) return fmt::format("BAR {} has {} bytes", bars[i].index, bars[i].size);
    if (i > 0 && bars[i].index == bars[i - 1].index) return fmt::format("BAR {} is there twice", bars[i].index);
  }
  return {};
}

bool is_page_size(std::uint64_t bytes) { return std::has_single_bit(bytes) && bytes >= 4096; }

Refusal refusal(const std::vector<HugePages>& pools) {
  for (std::size_t i = 0; i < pools.size(); ++i) {
    if (!is_page_size(pools[i].size)) return fmt::format("{} bytes are no page size", pools[i].size);
    if (i > 0 && pools[i].size == pools[i - 1].size) return "there are two pools of " + format_size(pools[i].size);
  }
  return {};
}

Refusal refusal(const FactRow& row, std::uint64_t value) {
  if (row.width < 64 && value >> row.width != 0) {
    return fmt::format("{} does not fit in {} bit{}", format_hex(value), row.width, row.width == 1 ? "" : "s");
  }
  if (row.kind == FactKind::size && !is_page_size(value)) return fmt::format("{} bytes are no page size", value);
  return {};
}

// ---------------------------------------------------------------- values into the model

template <class T>
Refusal take(T& into, const Value& value) {
  const T* typed = std::get_if<T>(&value);
  if (typed == nullptr) return "it is of another kind";
  if (auto why = refusal(*typed)) return why;
  into = *typed;
  return {};
}

template <class T>
Refusal take(std::optional<T>& into, const Value& value) {
  T typed;
  if (auto why = take(typed, value)) return why;
  into = std::move(typed);
  return {};
}

Refusal take(std::optional<std::uint64_t>& into, const FactRow& row, const Value& value) {
  const auto* number = std::get_if<std::uint64_t>(&value);
  if (number == nullptr) return "it is not a number";
  if (auto why = refusal(row, *number)) return why;
  into = *number;
  return {};
}

template <class E, std::size_t N>
Refusal take(std::optional<E>& into, const std::array<std::string_view, N>& names, const Value& value) {
  const auto* word = std::get_if<std::string>(&value);
  const auto it = word == nullptr ? names.end() : std::ranges::find(names, *word);
  if (it == names.end()) return "documents have no such word";
  into = static_cast<E>(it - names.begin());
  return {};
}

// A scalar of the tables in engine/model/facts.cc.
template <class Fact>
Refusal take(Facts<Fact>& facts, std::string_view key, const Value& value, DriverSet drivers = kEveryDriver) {
  for (std::size_t i = 0; i < kFactCount<Fact>; ++i) {
    const FactRow& row = row_of(static_cast<Fact>(i));
    const bool fits = row.drivers == kNoDriver || (row.drivers & drivers) != 0;
    if (row.key == key && fits) return take(facts[static_cast<Fact>(i)], row, value);
  }
  return "documents have no such key";
}

Refusal take(Kernel& kernel, std::string_view key, const Value& value) {
  if (key == "arch") return take(kernel.arch, kArchNames, value);
  if (key == "release") return take(kernel.release, value);
  if (key == "cpu_vendor") return take(kernel.cpu_vendor, value);
  if (key == "command_line") return take(kernel.command_line, value);
  if (key == "hugepages") return take(kernel.hugepages, value);
  return take(kernel.facts, key, value);
}

constexpr FactRow kAnyNumber = {"", FactKind::hex, 64, kNoDriver, std::nullopt, {}};
constexpr FactRow kGroupNumber = {"", FactKind::integer, 32, kNoDriver, std::nullopt, {}};

Refusal take(Unit& unit, std::string_view key, const Value& value) {
  if (key == "address") return take(unit.address, kAnyNumber, value);
  if (key == "version") return take(unit.version, value);
  return take(unit.facts, key, value, driver_set(unit.driver));
}

// `iommu` is the host's business.
Refusal take(Device& device, std::string_view key, const Value& value) {
  if (key == "name") return take(device.name, value);
  if (key == "driver") return take(device.bound_driver, value);
  if (key == "physical_function") return take(device.physical_function, value);
  if (key == "group_type") return take(device.group_type, value);
  if (key == "reserved") return take(device.reserved, value);
  if (key == "bars") return take(device.bars, value);
  if (key == "dma_coherent_source") return take(device.dma_coherent_source, kCoherencySourceNames, value);
  if (key == "group") {
    std::optional<std::uint64_t> group;
    if (auto why = take(group, kGroupNumber, value)) return why;
    device.group = static_cast<std::uint32_t>(*group);
    return {};
  }
  return take(device.facts, key, value);
}

// Lists are sets: the order in which a source has them says nothing.
struct SortList {
  template <class T>
  void operator()(std::vector<T>& items) const {
    std::ranges::sort(items);
  }
  template <class T>
  void operator()(T&) const {}
};

}  // namespace

// ---------------------------------------------------------------- names

FactName host_name() { return {About::host, {}, "name"}; }
FactName kernel(KernelFact fact) { return kernel(std::string(row_of(fact).key)); }
FactName kernel(std::string key) { return {About::kernel, {}, std::move(key)}; }
FactName unit(std::string id, UnitFact fact) { return unit(std::move(id), std::string(row_of(fact).key)); }
FactName unit(std::string id, std::string key) { return {About::unit, std::move(id), std::move(key)}; }
FactName device(std::string id, DeviceFact fact) { return device(std::move(id), std::string(row_of(fact).key)); }
FactName device(std::string id, std::string key) { return {About::device, full_pci_address(id), std::move(key)}; }

std::string path_of(const FactName& name) {
  static constexpr std::array<std::string_view, 4> sections = {"", "kernel", "iommus", "devices"};
  std::string path(sections[static_cast<std::size_t>(name.about)]);
  for (const std::string* part : {&name.id, &name.key}) {
    if (!path.empty() && !part->empty()) path += '.';
    path += *part;
  }
  return path;
}

void Findings::state(FactName name, Value value, std::string source, Standing standing) {
  std::visit(SortList{}, value);
  statements_.push_back({std::move(name), standing, std::move(value), std::move(source)});
}

void Findings::miss(FactName name, std::string why, std::string supply) {
  misses_.push_back({std::move(name), std::move(why), std::move(supply)});
}

// ---------------------------------------------------------------- settling

// First one statement for each fact, then the kernel, the units and the devices (in this order, because devices name
// their units), then what is missing. A large host states a hundred thousand facts, so nothing is copied before it is used.
class Findings::Settlement {
 public:
  Settlement(std::vector<Statement> statements, std::vector<Miss> misses)
      : statements_(std::move(statements)), misses_(std::move(misses)) {}

  Settled settle() {
    choose_all();
    for (std::size_t first = 0, end = 0; first < chosen_.size(); first = end) {
      const FactName& subject = *chosen_[first].name;
      while (end < chosen_.size() && same_subject(*chosen_[end].name, subject)) ++end;
      build(subject.about, subject.id, std::span(chosen_).subspan(first, end - first));
    }
    for (const Miss& m : misses_) {
      if (!is_known(m.name)) gap(m.name, m.why, m.supply);
    }
    host_.unknown = compact_gaps();
    host_.sources = compact_sources();
    sort_by_id(host_);
    std::ranges::sort(contradictions_);
    return {std::move(host_), std::move(contradictions_)};
  }

 private:
  // Of all statements of a fact the one that counts. A contradicted fact has none; its subject exists.
  struct Choice {
    const FactName* name;
    const Statement* statement;
    bool used = false;
  };
  using Choices = std::span<Choice>;  // of one subject, by key

  static bool same_subject(const FactName& a, const FactName& b) { return a.about == b.about && a.id == b.id; }

  static bool before(const Statement* a, const Statement* b) {
    if (const auto order = a->name <=> b->name; order != 0) return order < 0;
    if (a->standing != b->standing) return a->standing < b->standing;
    if (a->value != b->value) return a->value < b->value;
    return natural_less(a->source, b->source);
  }

  void choose_all() {
    std::vector<const Statement*> sorted;
    for (const Statement& s : statements_) sorted.push_back(&s);
    std::ranges::sort(sorted, before);
    for (std::size_t first = 0, end = 0; first < sorted.size(); first = end) {
      while (end < sorted.size() && sorted[end]->name == sorted[first]->name) ++end;
      choose(std::span(sorted).subspan(first, end - first));
    }
  }

  // Of all statements of one fact, sorted.
  void choose(std::span<const Statement* const> all) {
    std::size_t best = 0;  // of the best standing
    while (best < all.size() && all[best]->standing == all[0]->standing) ++best;
    const FactName& name = all[0]->name;
    const bool agreed = all[0]->value == all[best - 1]->value;
    chosen_.push_back({&name, agreed ? all[0] : nullptr});
    if (!agreed) contradict(name, all.first(best));
  }

  void contradict(const FactName& name, std::span<const Statement* const> all) {
    std::vector<Claim> claims;
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (i == 0 || all[i]->value != all[i - 1]->value) claims.push_back({text_of(all[i]->value), all[i]->source});
    }
    std::ranges::sort(claims);
    gap(name, "sources disagree: " + text_of(claims), "leave out the source that is wrong");
    contradictions_.push_back({path_of(name), std::move(claims)});
  }

  bool is_known(const FactName& name) const {
    const auto it = std::ranges::lower_bound(chosen_, name, {}, [](const Choice& c) -> const FactName& { return *c.name; });
    return it != chosen_.end() && *it->name == name && it->used;
  }

  void build(About about, const std::string& id, Choices facts) {
    switch (about) {
      case About::host: return use_all(host_.name, facts);
      case About::kernel: return use_all(host_.kernel, facts);
      case About::unit: return build_unit(id, facts);
      case About::device: return build_device(id, facts);
    }
  }

  void use_all(std::string& name, Choices facts) {
    for (Choice& c : facts) use(c, [&](const Value& v) { return take(name, v); });
  }

  template <class Subject>
  void use_all(Subject& subject, Choices facts) {
    for (Choice& c : facts) {
      const std::string& key = c.name->key;
      if (key.empty() || key == "iommu" || (key == "driver" && std::is_same_v<Subject, Unit>)) continue;
      use(c, [&](const Value& v) { return take(subject, key, v); });
    }
  }

  // `set` puts the value into the host, or says why a document could not hold it.
  template <class Set>
  void use(Choice& choice, Set set) {
    if (choice.statement == nullptr) return;
    choice.used = true;
    const Statement& s = *choice.statement;
    if (const Refusal why = set(s.value)) {
      gap(s.name, fmt::format("{} says `{}`: {}", s.source, text_of(s.value), *why), {});
    } else {
      source_of_.push_back(&s);
    }
  }

  static Choice* find(Choices facts, std::string_view key) {
    const auto it = std::ranges::find_if(facts, [&](const Choice& c) { return c.name->key == key; });
    return it == facts.end() ? nullptr : &*it;
  }

  // What a document cannot name is told once, and nothing that is said of it counts.
  bool has_good_id(std::string_view what, const std::string& id) {
    if (!id.empty() && is_one_line(id)) return true;
    gap({about_of(what), {}, {}}, fmt::format("there is one with the id `{}`, which no document can hold", escaped(id)), {});
    return false;
  }
  static About about_of(std::string_view what) { return what == "unit" ? About::unit : About::device; }

  // Without a driver that documents know, registers mean nothing.
  void build_unit(const std::string& id, Choices facts) {
    if (!has_good_id("unit", id)) return;
    std::optional<Driver> driver;
    if (Choice* c = find(facts, "driver")) {
      use(*c, [&](const Value& v) { return take(driver, kDriverNames, v); });
    } else {
      gap(unit(id, "driver"), "nothing says which driver it has", {});
    }
    if (!driver) return;
    unit_index_.emplace(id, host_.units.size());
    Unit& made = host_.units.emplace_back();
    made.id = id;
    made.driver = *driver;
    use_all(made, facts);
  }

  void build_device(const std::string& id, Choices facts) {
    if (!has_good_id("device", id)) return;
    Device& made = host_.devices.emplace_back();
    made.id = id;
    use_all(made, facts);
    if (Choice* c = find(facts, "iommu")) {
      use(*c, [&](const Value& v) { return place(made, v); });
    }
  }

  Refusal place(Device& device, const Value& value) const {
    const auto* id = std::get_if<std::string>(&value);
    const auto it = id == nullptr ? unit_index_.end() : unit_index_.find(*id);
    if (it == unit_index_.end()) return "nothing else is known of that unit";
    device.unit = UnitIndex(it->second);
    return {};
  }

  void gap(const FactName& name, std::string why, std::string supply) {
    gaps_[{name.about, name.key, name.id.empty() ? why : with(std::move(why), name.id, "*"), std::move(supply)}].insert(name.id);
  }

  // One gap for all units or devices that lack a fact for one reason; `*` in the reason is the id of each.
  std::vector<Gap> compact_gaps() const {
    std::vector<Gap> gaps;
    for (const auto& [what, ids] : gaps_) {
      const auto& [about, key, why, supply] = what;
      const std::size_t all = about == About::unit ? host_.units.size() : about == About::device ? host_.devices.size() : 1;
      const FactName name{about, ids.size() == 1 ? *ids.begin() : std::string(), key};
      gaps.push_back({path_of(name), ids.size() == 1 ? with(why, "*", name.id) : why, supply, {}});
      if (ids.size() > 1 && ids.size() != all) gaps.back().subjects.assign(ids.begin(), ids.end());
      std::ranges::sort(gaps.back().subjects, natural_less);
    }
    std::ranges::sort(gaps);
    return gaps;
  }

  // For each key of units or devices, the form that most sources have goes for all; the others are listed.
  std::map<std::string, std::string> compact_sources() const {
    const auto form = [](const Statement& s) { return with(s.source, s.name.id, "*"); };
    std::map<std::pair<About, std::string_view>, std::map<std::string, std::size_t>> forms;
    for (const Statement* s : source_of_) {
      if (!s->name.id.empty()) ++forms[{s->name.about, s->name.key}][form(*s)];
    }
    std::map<std::string, std::string> sources;
    std::map<std::pair<About, std::string_view>, const std::string*> common;
    for (const auto& [what, of] : forms) {
      const auto most = std::ranges::max_element(of, {}, [](const auto& f) { return f.second; });
      if (most->second == 1) continue;
      common[what] = &most->first;
      sources.emplace(path_of({what.first, "*", std::string(what.second)}), most->first);
    }
    for (const Statement* s : source_of_) {
      const auto it = common.find({s->name.about, s->name.key});
      if (it == common.end() || s->name.id.empty() || form(*s) != *it->second) sources.emplace(path_of(s->name), s->source);
    }
    return sources;
  }

  std::vector<Statement> statements_;
  std::vector<Miss> misses_;
  std::vector<Choice> chosen_;  // by name
  std::map<std::string, std::size_t> unit_index_;
  std::map<std::tuple<About, std::string, std::string, std::string>, std::set<std::string>> gaps_;
  std::vector<const Statement*> source_of_;
  std::vector<Contradiction> contradictions_;
  Host host_;
};

Settled Findings::settle() && { return Settlement(std::move(statements_), std::move(misses_)).settle(); }

}  // namespace ioplan::intake
