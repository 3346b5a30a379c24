#include "engine/document/plan_document.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/base/log2.h"
#include "engine/base/text.h"
#include "engine/document/document_text.h"
#include "engine/document/header.h"
#include "engine/document/load.h"
#include "engine/document/node.h"
#include "engine/document/reader.h"

namespace ioplan {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 2> kAccessNames = {"rw", "ro"};

// ---------------------------------------------------------------- Plan -> tree of JSON values

template <class E, std::size_t N>
std::string word(E value, const std::array<std::string_view, N>& names) {
  return std::string(names[static_cast<std::size_t>(value)]);
}

template <class T, class F>
Json list(const std::vector<T>& items, F each) {
  Json array = Json::array();
  for (const T& item : items) array.push_back(each(item));
  return array;
}

Json strings(const std::vector<std::string>& items) {
  return list(items, [](const std::string& s) { return Json(s); });
}

Json range_json(const Range& r) { return Json::array({format_hex(r.start), format_hex(r.last)}); }

Json flags_json(std::uint8_t flags) {
  Json array = Json::array();
  for (std::size_t i = 0; i < kHwptFlagNames.size(); ++i) {
    if (bit(flags, static_cast<unsigned>(i))) array.push_back(kHwptFlagNames[i]);
  }
  return array;
}

Json page_sizes_json(std::uint64_t bitmap) {
  Json array = Json::array();
  for (; bitmap != 0; bitmap &= bitmap - 1) array.push_back(lowest_bit(bitmap));
  return array;
}

Json reserved_json(const ReservedRegion& r) {
  return {{"range", range_json(r.range)}, {"type", word(r.type, kReservedTypeNames)}};
}

Json memory_json(const MemoryRange& m) {
  return {{"gpa", range_json(m.gpa)}, {"access", word(m.access, kAccessNames)}};
}

Json ioas_json(const PlannedIoas& ioas) {
  Json json;
  json["id"] = ioas.id;
  json["vm"] = ioas.vm;
  json["ranges"] = list(ioas.ranges, range_json);
  json["reserved"] = list(ioas.reserved, reserved_json);
  json["alignment"] = ioas.alignment;
  json["memory"] = list(ioas.memory, memory_json);
  json["backing"] = ioas.backing;
  if (!ioas.allowed.empty()) json["allowed"] = list(ioas.allowed, range_json);
  if (!ioas.retained.empty()) json["retained"] = strings(ioas.retained);
  return json;
}

Json hwpt_json(const PlannedHwpt& hwpt) {
  Json json;
  json["id"] = hwpt.id;
  json["ioas"] = hwpt.ioas;
  json["kind"] = word(hwpt.kind, kHwptKindNames);
  json["allocator"] = hwpt.allocator;
  json["automatic"] = hwpt.automatic;
  json["flags"] = flags_json(hwpt.flags);
  json["driver"] = word(hwpt.driver, kDriverNames);
  json["stage"] = hwpt.stage;
  json["format"] = word(hwpt.format, kPageTableFormatNames);
  json["levels"] = hwpt.levels;
  json["address_bits"] = hwpt.address_bits;
  json["aperture"] = range_json(hwpt.aperture);
  json["page_sizes"] = page_sizes_json(hwpt.page_sizes);
  json["enforce_cache_coherency"] = hwpt.enforce_cache_coherency;
  json["page_table_bytes"] = hwpt.page_table_bytes;
  json["devices"] = strings(hwpt.devices);
  return json;
}

Json optimality_json(const Optimality& o) {
  Json json;
  json["hwpts"] = o.hwpts;
  json["lower_bound"] = o.lower_bound;
  json["proof"] = word(o.proof, kProofKindNames);
  json["witness"] = strings(o.witness);
  json["proved"] = Json::array();
  for (std::size_t i = 0; i < kObjectiveNames.size(); ++i) {
    if (o.proved[i]) json["proved"].push_back(kObjectiveNames[i]);
  }
  if (o.proof == ProofKind::smt) json["smt2"] = o.smt2;
  return json;
}

Json objectives_json(const ObjectiveValues& values) {
  Json json;
  for (std::size_t i = 0; i < kObjectiveNames.size(); ++i)
    json[std::string(kObjectiveNames[i])] = values.by_objective[i];
  return json;
}

Json assumption_json(const Assumption& a) {
  Json json = {{"fact", a.fact}, {"value", a.value}};
  if (!a.subjects.empty()) json["subjects"] = strings(a.subjects);
  return json;
}

Json conflict_json(const Conflict& c) {
  return {{"rule", c.rule}, {"subjects", strings(c.subjects)}, {"because", c.because}};
}

Json fix_json(const Fix& f) { return {{"change", f.change}, {"subjects", strings(f.subjects)}, {"text", f.text}}; }

Json unknown_json(const UnknownFact& u) {
  return {{"fact", u.fact},
          {"values", Json::array({u.first_value, u.second_value})},
          {"answers", Json::array({u.first_answer, u.second_answer})}};
}

Json frozen_json(const FrozenFeature& f) {
  return {{"vm", f.vm}, {"feature", f.feature}, {"value", f.value}, {"because", strings(f.because)}};
}

Json promise_json(const Promise& p) {
  Json json = {{"vm", p.vm}};
  if (p.device.empty()) {
    json["memory"] = range_json(p.memory);
  } else {
    json["device"] = p.device;
    json["hwpt"] = p.hwpt;
  }
  return json;
}

Json unpromised_json(const Unpromised& u) {
  return {{"vm", u.vm}, {"subject", u.subject}, {"rule", u.rule}, {"because", u.because}};
}

bool maps_or_unmaps(StepKind kind) { return kind == StepKind::map || kind == StepKind::unmap; }

Json step_json(const Step& step) {
  Json json;
  json["do"] = word(step.kind, kStepKindNames);
  if (!step.device.empty()) json["device"] = step.device;
  if (!step.ioas.empty()) json["ioas"] = step.ioas;
  if (!step.hwpt.empty()) json["hwpt"] = step.hwpt;
  if (step.kind == StepKind::hwpt_alloc) json["flags"] = flags_json(step.flags);
  if (step.kind == StepKind::allow_iovas) json["ranges"] = list(step.ranges, range_json);
  if (maps_or_unmaps(step.kind)) {
    json["iova"] = range_json(step.iova);
    json["access"] = word(step.writeable ? Access::read_write : Access::read_only, kAccessNames);
  }
  return json;
}

Json plan_json(const Plan& plan) {
  Json json;
  json["apiVersion"] = kApiVersion;
  json["kind"] = name_of(DocumentKind::plan);
  json["host"] = {{"fingerprint", plan.fingerprint}};
  if (plan.interface != KernelInterface::iommufd) json["backend"] = word(plan.interface, kKernelInterfaceNames);
  json["vms"] = strings(plan.vms);
  json["verdict"] = word(plan.verdict, kVerdictNames);
  json["ioas"] = list(plan.ioas, ioas_json);
  json["hwpts"] = list(plan.hwpts, hwpt_json);
  json["kvm"] = {{"noncoherent_dma", plan.kvm.noncoherent_dma}, {"because", strings(plan.kvm.because)}};
  json["resources"] = {{"pinned_bytes", plan.resources.pinned_bytes},
                       {"page_table_bytes", plan.resources.page_table_bytes},
                       {"memlock_bytes", plan.resources.memlock_bytes}};
  json["optimality"] = optimality_json(plan.optimality);
  json["objectives"] = objectives_json(plan.objectives);
  json["preferences"] = strings(plan.preferences);
  json["frozen"] = list(plan.frozen, frozen_json);
  json["promises"] = list(plan.promises, promise_json);
  json["unpromised"] = list(plan.unpromised, unpromised_json);
  json["assumptions"] = list(plan.assumptions, assumption_json);
  json["conflict"] = list(plan.conflict, conflict_json);
  json["fixes"] = list(plan.fixes, fix_json);
  json["unknown"] = list(plan.unknown, unknown_json);
  json["steps"] = list(plan.steps, step_json);
  return json;
}

// ---------------------------------------------------------------- document -> Plan

std::vector<std::string> read_strings(Reader& reader, const Field& field) {
  std::vector<std::string> words;
  reader.items(field, [&](const Field& item) { words.push_back(reader.text(item)); });
  return words;
}

template <class F>
auto read_list(Reader& reader, const Field& field, F each) {
  std::vector<decltype(each(field))> items;
  reader.items(field, [&](const Field& item) { items.push_back(each(item)); });
  return items;
}

std::vector<Range> read_ranges(Reader& reader, const Field& field) {
  return read_list(reader, field, [&](const Field& item) { return reader.range(item); });
}

std::uint8_t read_flags(Reader& reader, const Field& field) {
  unsigned flags = 0;
  reader.items(field, [&](const Field& item) { flags |= 1U << reader.choice(item, kHwptFlagNames); });
  return static_cast<std::uint8_t>(flags);
}

unsigned read_small(Reader& reader, const Field& field) { return static_cast<unsigned>(reader.integer(field, 8)); }

std::uint64_t read_page_sizes(Reader& reader, const Field& field) {
  std::uint64_t bitmap = 0;
  reader.items(field, [&](const Field& item) {
    const std::uint64_t size = reader.integer(item);
    if (reader.ok() && !std::has_single_bit(size)) {
      reader.fail(item.value, fmt::format("a page size is a power of two, not `{}`", size));
    }
    bitmap |= size;
  });
  return bitmap;
}

ReservedRegion read_reserved(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 2> keys = {"range", "type"};
  const MapReader map(reader, field.value, "reserved", keys);
  return {reader.range(map.required("range")),
          reader.enumeration<ReservedType>(map.required("type"), kReservedTypeNames)};
}

MemoryRange read_memory(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 2> keys = {"gpa", "access"};
  const MapReader map(reader, field.value, "memory", keys);
  return {reader.range(map.required("gpa")), reader.enumeration<Access>(map.required("access"), kAccessNames)};
}

PlannedIoas read_ioas(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 9> keys = {"id",     "vm",      "ranges",  "reserved", "alignment",
                                                           "memory", "backing", "allowed", "retained"};
  const MapReader map(reader, field.value, "ioas", keys);
  PlannedIoas ioas;
  ioas.id = reader.text(map.required("id"));
  ioas.vm = reader.text(map.required("vm"));
  ioas.ranges = read_ranges(reader, map.required("ranges"));
  ioas.reserved = read_list(reader, map.required("reserved"), [&](const Field& f) { return read_reserved(reader, f); });
  ioas.alignment = reader.integer(map.required("alignment"));
  ioas.memory = read_list(reader, map.required("memory"), [&](const Field& f) { return read_memory(reader, f); });
  ioas.backing = reader.integer(map.required("backing"));
  ioas.allowed = read_ranges(reader, map.optional("allowed"));
  ioas.retained = read_strings(reader, map.optional("retained"));
  return ioas;
}

PlannedHwpt read_hwpt(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 16> keys = {"id",
                                                            "ioas",
                                                            "kind",
                                                            "allocator",
                                                            "automatic",
                                                            "flags",
                                                            "driver",
                                                            "stage",
                                                            "format",
                                                            "levels",
                                                            "address_bits",
                                                            "aperture",
                                                            "page_sizes",
                                                            "enforce_cache_coherency",
                                                            "page_table_bytes",
                                                            "devices"};
  const MapReader map(reader, field.value, "hwpts", keys);
  PlannedHwpt hwpt;
  hwpt.id = reader.text(map.required("id"));
  hwpt.ioas = reader.text(map.required("ioas"));
  hwpt.kind = reader.enumeration<HwptKind>(map.required("kind"), kHwptKindNames);
  hwpt.allocator = reader.text(map.required("allocator"));
  hwpt.automatic = reader.boolean(map.required("automatic"));
  hwpt.flags = read_flags(reader, map.required("flags"));
  hwpt.driver = reader.enumeration<Driver>(map.required("driver"), kDriverNames);
  hwpt.stage = read_small(reader, map.required("stage"));
  hwpt.format = reader.enumeration<PageTableFormat>(map.required("format"), kPageTableFormatNames);
  hwpt.levels = read_small(reader, map.required("levels"));
  hwpt.address_bits = read_small(reader, map.required("address_bits"));
  hwpt.aperture = reader.range(map.required("aperture"));
  hwpt.page_sizes = read_page_sizes(reader, map.required("page_sizes"));
  hwpt.enforce_cache_coherency = reader.boolean(map.required("enforce_cache_coherency"));
  hwpt.page_table_bytes = reader.integer(map.required("page_table_bytes"));
  hwpt.devices = read_strings(reader, map.required("devices"));
  return hwpt;
}

KvmVerdict read_kvm(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 2> keys = {"noncoherent_dma", "because"};
  const MapReader map(reader, field.value, "kvm", keys);
  return {reader.boolean(map.required("noncoherent_dma")), read_strings(reader, map.required("because"))};
}

Resources read_resources(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 3> keys = {"pinned_bytes", "page_table_bytes", "memlock_bytes"};
  const MapReader map(reader, field.value, "resources", keys);
  return {reader.integer(map.required("pinned_bytes")), reader.integer(map.required("page_table_bytes")),
          reader.integer(map.required("memlock_bytes"))};
}

Optimality read_optimality(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 6> keys = {"hwpts",   "lower_bound", "proof",
                                                           "witness", "proved",      "smt2"};
  const MapReader map(reader, field.value, "optimality", keys);
  Optimality optimality;
  optimality.hwpts = reader.integer(map.required("hwpts"));
  optimality.lower_bound = reader.integer(map.required("lower_bound"));
  optimality.proof = reader.enumeration<ProofKind>(map.required("proof"), kProofKindNames);
  optimality.witness = read_strings(reader, map.required("witness"));
  reader.items(map.required("proved"),
               [&](const Field& item) { optimality.proved[reader.choice(item, kObjectiveNames)] = true; });
  const Field smt2 = map.optional("smt2");
  if (reader.ok() && static_cast<bool>(smt2) != (optimality.proof == ProofKind::smt)) {
    reader.fail(map.node(), "`smt2` is there exactly when `proof` is `smt`");
  }
  optimality.smt2 = reader.prose(smt2);
  return optimality;
}

ObjectiveValues read_objectives(Reader& reader, const Field& field) {
  const MapReader map(reader, field.value, "objectives", kObjectiveNames);
  ObjectiveValues values;
  for (std::size_t i = 0; i < kObjectiveNames.size(); ++i) {
    values.by_objective[i] = reader.integer(map.required(kObjectiveNames[i]));
  }
  return values;
}

Assumption read_assumption(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 3> keys = {"fact", "value", "subjects"};
  const MapReader map(reader, field.value, "assumptions", keys);
  return {reader.text(map.required("fact")), reader.prose(map.required("value")),
          read_strings(reader, map.optional("subjects"))};
}

Conflict read_conflict(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 3> keys = {"rule", "subjects", "because"};
  const MapReader map(reader, field.value, "conflict", keys);
  return {reader.text(map.required("rule")), read_strings(reader, map.required("subjects")),
          reader.prose(map.required("because"))};
}

Fix read_fix(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 3> keys = {"change", "subjects", "text"};
  const MapReader map(reader, field.value, "fixes", keys);
  return {reader.text(map.required("change")), read_strings(reader, map.required("subjects")),
          reader.prose(map.required("text"))};
}

std::pair<std::string, std::string> read_two(Reader& reader, const Field& field) {
  if (!field || !reader.ok()) return {};
  if (!field.value.is_sequence() || field.value.size() != 2) {
    reader.fail(field.value, fmt::format("`{}` must be a list of two", field.key));
    return {};
  }
  const Node first = field.value.first();
  return {reader.prose({first, field.key}), reader.prose({field.value.after(first), field.key})};
}

UnknownFact read_unknown(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 3> keys = {"fact", "values", "answers"};
  const MapReader map(reader, field.value, "unknown", keys);
  UnknownFact unknown;
  unknown.fact = reader.text(map.required("fact"));
  std::tie(unknown.first_value, unknown.second_value) = read_two(reader, map.required("values"));
  std::tie(unknown.first_answer, unknown.second_answer) = read_two(reader, map.required("answers"));
  return unknown;
}

FrozenFeature read_frozen(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 4> keys = {"vm", "feature", "value", "because"};
  const MapReader map(reader, field.value, "frozen", keys);
  return {reader.text(map.required("vm")), reader.text(map.required("feature")), reader.prose(map.required("value")),
          read_strings(reader, map.required("because"))};
}

Promise read_promise(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 4> keys = {"vm", "device", "hwpt", "memory"};
  const MapReader map(reader, field.value, "promises", keys);
  const Field device = map.optional("device"), memory = map.optional("memory");
  if (reader.ok() && static_cast<bool>(device) == static_cast<bool>(memory)) {
    reader.fail(field.value, "a promise is of a `device` or of `memory`");
  }
  return {reader.text(map.required("vm")), reader.text(device), reader.text(map.optional("hwpt")),
          reader.range(memory)};
}

Unpromised read_unpromised(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 4> keys = {"vm", "subject", "rule", "because"};
  const MapReader map(reader, field.value, "unpromised", keys);
  return {reader.text(map.required("vm")), reader.text(map.required("subject")), reader.text(map.required("rule")),
          reader.prose(map.required("because"))};
}

// What each kind of step must say, and what it may say besides (see Step).
struct StepShape {
  std::array<std::string_view, 5> required;
  std::array<std::string_view, 3> also;
};
constexpr std::array<StepShape, kStepKindNames.size()> kStepShapes = {{
    {{"device"}, {"ioas", "hwpt"}},
    {{"ioas"}, {"device", "hwpt"}},
    {{"ioas", "ranges"}, {"device", "hwpt"}},
    {{"device", "ioas", "hwpt", "flags"}, {}},
    {{"device", "hwpt"}, {"ioas"}},
    {{"device", "ioas"}, {"hwpt"}},
    {{"ioas", "iova", "access"}, {"device", "hwpt"}},
    {{"device"}, {"ioas", "hwpt"}},
    {{"device"}, {"ioas", "hwpt"}},
    {{"device"}, {"ioas", "hwpt"}},
    {{"device", "hwpt"}, {"ioas"}},
    {{"device"}, {"ioas", "hwpt"}},
    {{"hwpt"}, {"device", "ioas"}},
    {{"ioas", "iova", "access"}, {"device", "hwpt"}},
    {{"ioas"}, {"device", "hwpt"}},
}};

std::vector<std::string_view> step_keys(const StepShape& shape) {
  std::vector<std::string_view> keys = {"do"};
  for (std::string_view key : shape.required) {
    if (!key.empty()) keys.push_back(key);
  }
  for (std::string_view key : shape.also) {
    if (!key.empty()) keys.push_back(key);
  }
  return keys;
}

Step read_step(Reader& reader, const Field& field) {
  Step step;
  const Node what = field.value.is_map() ? field.value.find("do") : Node();
  if (!what) {
    reader.fail(field.value, "a step has no `do`", "accepted: " + list_of(kStepKindNames));
    return step;
  }
  step.kind = reader.enumeration<StepKind>({what, "do"}, kStepKindNames);
  const StepShape& shape = kStepShapes[static_cast<std::size_t>(step.kind)];
  const std::vector<std::string_view> keys = step_keys(shape);
  const MapReader map(reader, field.value, "steps", keys);
  for (std::string_view key : shape.required) {
    if (!key.empty()) map.required(key);
  }
  step.device = reader.text(map.optional("device"));
  step.ioas = reader.text(map.optional("ioas"));
  step.hwpt = reader.text(map.optional("hwpt"));
  step.flags = read_flags(reader, map.optional("flags"));
  step.ranges = read_ranges(reader, map.optional("ranges"));
  step.iova = reader.range(map.optional("iova"));
  step.writeable = reader.enumeration<Access>(map.optional("access"), kAccessNames) == Access::read_write;
  return step;
}

std::string read_fingerprint(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 1> keys = {"fingerprint"};
  const MapReader map(reader, field.value, "host", keys);
  return reader.text(map.required("fingerprint"));
}

Plan read_plan_map(Reader& reader, const Node& root) {
  static constexpr std::array<std::string_view, 21> keys = {
      "apiVersion", "kind",       "host",        "backend",    "vms",         "verdict", "ioas",
      "hwpts",      "kvm",        "resources",   "optimality", "objectives",  "preferences", "frozen",
      "promises",   "unpromised", "assumptions", "conflict",   "fixes",       "unknown", "steps"};
  const MapReader map(reader, root, "Plan", keys);
  const auto each = [&](std::string_view key, auto read) {
    return read_list(reader, map.required(key), [&](const Field& item) { return read(reader, item); });
  };
  Plan plan;
  plan.fingerprint = read_fingerprint(reader, map.required("host"));
  if (const Field backend = map.optional("backend")) {
    plan.interface = reader.enumeration<KernelInterface>(backend, kKernelInterfaceNames);
  }
  plan.vms = read_strings(reader, map.required("vms"));
  plan.verdict = reader.enumeration<Verdict>(map.required("verdict"), kVerdictNames);
  plan.ioas = each("ioas", read_ioas);
  plan.hwpts = each("hwpts", read_hwpt);
  plan.kvm = read_kvm(reader, map.required("kvm"));
  plan.resources = read_resources(reader, map.required("resources"));
  plan.optimality = read_optimality(reader, map.required("optimality"));
  plan.objectives = read_objectives(reader, map.required("objectives"));
  plan.preferences = read_strings(reader, map.required("preferences"));
  const auto grown = [&](std::string_view key, auto read) {  // keys that older plans lack
    return read_list(reader, map.optional(key), [&](const Field& item) { return read(reader, item); });
  };
  plan.frozen = grown("frozen", read_frozen);
  plan.promises = grown("promises", read_promise);
  plan.unpromised = grown("unpromised", read_unpromised);
  plan.assumptions = each("assumptions", read_assumption);
  plan.conflict = each("conflict", read_conflict);
  plan.fixes = each("fixes", read_fix);
  plan.unknown = each("unknown", read_unknown);
  plan.steps = each("steps", read_step);
  return plan;
}

// The root of the one document, which is a Plan.
Node plan_root(Reader& reader, const Tree& tree) {
  const std::vector<Node> documents = tree.documents();
  if (documents.empty()) return {};
  const Node root = documents.front();
  const DocumentKind kind = read_header(reader, root);
  if (reader.ok() && kind != DocumentKind::plan) {
    reader.fail(root.find("kind"), fmt::format("a {} is not a Plan", name_of(kind)),
                "`ioplan plan -o json` prints a Plan");
  }
  if (documents.size() > 1) {
    reader.fail(documents[1], "a file with a Plan holds one document", "move the other documents to their own file");
  }
  return root;
}

}  // namespace

std::string to_json(const Plan& plan) { return json_text(plan_json(plan)); }

std::string to_yaml(const Plan& plan) { return yaml_text(plan_json(plan), YamlStyle::block); }

Result<Plan> read_plan(std::string name, std::string text) {
  if (text.size() > kMaxFileBytes) return failure("the Plan is larger than 64MiB", {}, {name, 0, 0});
  Tree tree(std::move(name), std::move(text));
  if (auto parsed = parse(tree); !parsed) return tl::make_unexpected(parsed.error());
  Reader reader;
  const Node root = plan_root(reader, tree);
  if (!root) return failure("no document in the file", "`ioplan plan -o json` prints a Plan", {tree.name(), 0, 0});
  Plan plan = reader.ok() ? read_plan_map(reader, root) : Plan{};
  if (!reader.ok()) return tl::make_unexpected(reader.error());
  return plan;
}

Result<Plan> read_plan_file(const std::string& path) {
  auto text = read_text_file(path);
  if (!text) return tl::make_unexpected(text.error());
  return read_plan(path, std::move(*text));
}

}  // namespace ioplan
