#include "tests/support/iommufd_duel.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "constraints/kernel_law.h"

namespace ioplan::traces {

namespace {

using sim::ObjectId;

std::string error_text(int error) { return error == 0 ? "ok" : std::string(strerrorname_np(error)); }

std::string ranges_text(std::span<const Range> ranges) {
  std::string text;
  for (const Range& r : ranges) text += fmt::format(" {:#x}-{:#x}", r.start, r.last);
  return text;
}

bool makes_object(Verb verb) {
  switch (verb) {
    case Verb::bind:
    case Verb::ioas_alloc:
    case Verb::hwpt_alloc:
    case Verb::fault_queue_alloc:
    case Verb::attach:
    case Verb::replace:
    case Verb::vfio_attach:
    case Verb::access_create:
      return true;
    default:
      return false;
  }
}

// A replace may have done harm before it ran out of memory (H1, H2 on its way through the walk), and a DMA is no call.
bool leaves_no_trace(Verb verb) {
  return verb != Verb::replace && verb != Verb::vfio_attach && verb != Verb::dma_read && verb != Verb::dma_write &&
         verb != Verb::ioas_unmap && verb != Verb::close;
}

std::string bitmap_text(std::span<const std::uint64_t> words) {
  std::string text;
  for (std::size_t w = 0; w < words.size(); ++w) {
    if (words[w] != 0) text += fmt::format(" {}:{:#x}", w, words[w]);
  }
  return text;
}

std::uint64_t bits_in(std::span<const std::uint64_t> words) {
  std::uint64_t bits = 0;
  for (std::uint64_t word : words) bits += static_cast<std::uint64_t>(std::popcount(word));
  return bits;
}

std::size_t bitmap_words(const Call& call) {
  if (call.source == 0) return 1;
  return std::min<std::uint64_t>(call.length / call.source / 64 + 2, 1U << 16);
}

}  // namespace

Duel::Duel(const Sketch& sketch, Tally* tally) : host_(host_of(sketch)), tally_(tally) {
  auto made = sim::Machine::create(host_, kernel_law(), options_of(sketch));
  if (!made) throw std::runtime_error(to_text(made.error()));
  machine_ = std::move(*made);
  struct Wanted {
    std::uint64_t size, backing;
  };
  constexpr std::array<Wanted, kMemories> kWanted = {
      {{64 << 10, 4 << 10}, {4 << 20, 2 << 20}, {32 << 10, 4 << 10}, {256 << 10, 64 << 10}}};
  for (int m = 0; m < kMemories; ++m) {
    const Wanted& wanted = kWanted[static_cast<std::size_t>(m)];
    const sim::Memory memory = machine_->memory().allocate(wanted.size, wanted.backing, m != kReadOnlyMemory);
    slow::Ram ram{memory.user_va, memory.fd, memory.writeable, {}};
    std::vector<sim::Extent> extents;
    machine_->memory().extents(memory, 0, memory.size, extents);
    for (const sim::Extent& e : extents) {
      for (std::uint64_t at = 0; at < e.size; at += slow::kPage) ram.page_pa.push_back(e.pa + at);
    }
    ram_.push_back(std::move(ram));
  }
  model_ = std::make_unique<slow::Model>(host_, kernel_law(), options_of(sketch), ram_);
  pristine_ = machine_->world();
  for (unsigned c = 0; c < kContexts; ++c) {
    model_->open();
    contexts_.push_back(machine_->open());
  }
}

Duel::~Duel() = default;

int Duel::made_by(unsigned context, ObjectId id) const {
  const auto at = made_by_.find({context, id});
  return at == made_by_.end() ? -1 : at->second;
}

ObjectId Duel::resolve(const Id& id) const {
  if (id.result < 0) return id.number;
  return static_cast<std::size_t>(id.result) < results_.size() ? results_[static_cast<std::size_t>(id.result)] : 0;
}

std::uint64_t Duel::address(const Call& call) const {
  if (call.memory < 0) return call.va;
  const std::uint64_t base = call.verb == Verb::ioas_map_file ? 0 : ram_[static_cast<std::size_t>(call.memory)].user_va;
  return base + call.va;
}

int Duel::fd(const Call& call) const { return call.memory < 0 ? 1000 : ram_[static_cast<std::size_t>(call.memory)].fd; }

std::string Duel::perform(const Call& call, std::uint64_t fail_nth) {
  if (contexts_[call.context] == nullptr) {
    results_.push_back(0);
    return {};
  }
  const Answered theirs = ask_model(call);
  std::string text;
  if (call.verb == Verb::dma_read || call.verb == Verb::dma_write) {
    text = dma(call, theirs);
    last_error_ = theirs.error;
  } else {
    const bool starve = fail_nth != 0 && leaves_no_trace(call.verb);
    const Answered ours = starve ? ask_simulator_twice(call, fail_nth, text) : ask_simulator(call);
    last_error_ = ours.error;
    if (tally_ != nullptr) ++tally_->answers[{call.verb, ours.error}];
    if (tally_ != nullptr && ours.error != 0) ++tally_->reasons[{ours.error, ours.reason}];
    if (text.empty() && (ours.error != theirs.error || ours.value != theirs.value || ours.detail != theirs.detail)) {
      text = fmt::format("simulator: {} {:#x}{}{}\n  model:     {} {:#x}{}", error_text(ours.error), ours.value,
                         ours.detail, ours.reason.empty() ? "" : " (" + ours.reason + ")", error_text(theirs.error),
                         theirs.value, theirs.detail);
    }
  }
  if (tally_ != nullptr) ++tally_->calls;
  const bool named = theirs.error == 0 && makes_object(call.verb);
  results_.push_back(named ? static_cast<ObjectId>(theirs.value) : 0);
  if (named) made_by_[{call.context, results_.back()}] = static_cast<int>(results_.size()) - 1;
  return text;
}

// A call that cannot have what it needs says ENOMEM and changes nothing; made again, it has it.
Duel::Answered Duel::ask_simulator_twice(const Call& call, std::uint64_t nth, std::string& fault) {
  const std::string before = machine_->world();
  machine_->fail_nth(nth);
  Answered first = ask_simulator(call);
  const bool struck = machine_->injected();
  machine_->fail_nth(0);
  if (!struck) return first;
  if (tally_ != nullptr) ++tally_->injected;
  const std::string after = machine_->world();
  if (first.error != ENOMEM) {
    fault = fmt::format("resource {} missing: the simulator says {} {}", nth, error_text(first.error), first.reason);
  } else if (after != before) {
    fault = fmt::format("resource {} missing: the world changed\nbefore:\n{}after:\n{}", nth, before, after);
  }
  return ask_simulator(call);
}

Duel::Answered Duel::ask_simulator(const Call& call) {
  sim::Context& c = *contexts_[call.context];
  Answered answered;
  const auto refused = [&](const sim::Refusal& refusal) {
    answered.error = refusal.errno_value;
    answered.reason = std::string(refusal.reason);
    return answered;
  };
  const auto number = [&](const auto& answer) {
    if (!answer) return refused(answer.error());
    answered.value = static_cast<std::uint64_t>(*answer);
    return answered;
  };
  const auto nothing = [&](const sim::Answer<void>& answer) { return answer ? answered : refused(answer.error()); };
  const ObjectId object = resolve(call.object);
  const ObjectId other = resolve(call.other);
  const auto option = static_cast<sim::Option>(call.option);
  switch (call.verb) {
    case Verb::bind:
      return number(c.bind(device_name(call.device)));
    case Verb::unbind:
      return nothing(c.unbind(object));
    case Verb::ioas_alloc:
      return number(c.ioas_alloc());
    case Verb::ioas_allow_iovas:
      return nothing(c.ioas_allow_iovas(object, call.ranges));
    case Verb::ioas_iova_ranges: {
      const auto answer = c.ioas_iova_ranges(object);
      if (!answer) return refused(answer.error());
      answered.value = answer->alignment;
      answered.detail = ranges_text(answer->ranges);
      return answered;
    }
    case Verb::ioas_map:
      return number(c.ioas_map(object, call.flags, address(call), call.length, call.iova));
    case Verb::ioas_map_file:
      return number(c.ioas_map_file(object, call.flags, fd(call), call.va, call.length, call.iova));
    case Verb::ioas_copy:
      return number(c.ioas_copy(object, other, call.flags, call.length, call.iova, call.source));
    case Verb::ioas_unmap:
      return number(c.ioas_unmap(object, call.iova, call.length));
    case Verb::set_option:
      return nothing(c.set_option(option, object, call.source));
    case Verb::get_option:
      return number(c.get_option(option, object));
    case Verb::hwpt_alloc:
      return number(c.hwpt_alloc(object, other, call.flags, resolve(call.fault)));
    case Verb::fault_queue_alloc:
      return number(c.fault_queue_alloc());
    case Verb::get_hw_info: {
      const auto answer = c.get_hw_info(object);
      if (!answer) return refused(answer.error());
      answered.value = answer->max_pasid_log2 | (answer->capabilities & sim::kCapabilityDirtyTracking) << 32;
      return answered;
    }
    case Verb::set_dirty:
      return nothing(c.hwpt_set_dirty_tracking(object, call.flags != 0));
    case Verb::get_dirty: {
      std::vector<std::uint64_t> words(bitmap_words(call));
      const auto mode = call.flags != 0 ? sim::DirtyRead::keep : sim::DirtyRead::clear;
      const auto answer = c.hwpt_get_dirty_bitmap(object, mode, call.iova, call.length, call.source, words);
      if (!answer) return refused(answer.error());
      answered.detail = bitmap_text(words);
      if (tally_ != nullptr) tally_->dirty_pages += bits_in(words);
      return answered;
    }
    case Verb::attach:
      return number(c.attach(object, other, call.pasid));
    case Verb::replace:
      return number(c.replace(object, other, call.pasid));
    case Verb::vfio_attach:
      return number(c.vfio_attach(object, other, call.pasid));
    case Verb::detach:
      return nothing(c.detach(object, call.pasid));
    case Verb::access_create:
      return number(c.access_create(object, call.flags != 0));
    case Verb::access_destroy:
      return nothing(c.access_destroy(object));
    case Verb::destroy:
      return nothing(c.destroy(object));
    case Verb::close:
      contexts_[call.context].reset();
      return answered;
    default:
      return answered;
  }
}

Duel::Answered Duel::ask_model(const Call& call) {
  slow::Model& m = *model_;
  const unsigned c = call.context;
  const ObjectId object = resolve(call.object);
  const ObjectId other = resolve(call.other);
  const auto option = static_cast<sim::Option>(call.option);
  const auto plain = [](const slow::Outcome& o) { return Answered{o.error, o.error == 0 ? o.value : 0, {}, {}}; };
  switch (call.verb) {
    case Verb::bind:
      return plain(m.bind(c, device_name(call.device)));
    case Verb::unbind:
      return plain(m.unbind(c, object));
    case Verb::ioas_alloc:
      return plain(m.ioas_alloc(c));
    case Verb::ioas_allow_iovas:
      return plain(m.ioas_allow_iovas(c, object, call.ranges));
    case Verb::ioas_iova_ranges: {
      const auto& ioases = m.context(c).ioases;
      if (!ioases.contains(object)) return {ENOENT, 0, {}, {}};
      return {0, m.alignment(m.context(c), object), {}, ranges_text(m.iova_ranges(ioases.at(object)))};
    }
    case Verb::ioas_map:
      return plain(m.ioas_map(c, object, call.flags, address(call), call.length, call.iova));
    case Verb::ioas_map_file:
      return plain(m.ioas_map_file(c, object, call.flags, fd(call), call.va, call.length, call.iova));
    case Verb::ioas_copy:
      return plain(m.ioas_copy(c, object, other, call.flags, call.length, call.iova, call.source));
    case Verb::ioas_unmap:
      return plain(m.ioas_unmap(c, object, call.iova, call.length));
    case Verb::set_option:
      return plain(m.set_option(c, option, object, call.source));
    case Verb::get_option:
      return plain(m.get_option(c, option, object));
    case Verb::hwpt_alloc:
      return plain(m.hwpt_alloc(c, object, other, call.flags, resolve(call.fault)));
    case Verb::fault_queue_alloc:
      return plain(m.fault_queue_alloc(c));
    case Verb::get_hw_info:
      return plain(m.get_hw_info(c, object));
    case Verb::set_dirty:
      return plain(m.hwpt_set_dirty_tracking(c, object, call.flags != 0));
    case Verb::get_dirty: {
      std::vector<std::uint64_t> words(bitmap_words(call));
      const auto mode = call.flags != 0 ? sim::DirtyRead::keep : sim::DirtyRead::clear;
      Answered a = plain(m.hwpt_get_dirty_bitmap(c, object, mode, call.iova, call.length, call.source, words));
      if (a.error == 0) a.detail = bitmap_text(words);
      return a;
    }
    case Verb::attach:
      return plain(m.attach(c, object, other, call.pasid));
    case Verb::replace:
      return plain(m.replace(c, object, other, call.pasid));
    case Verb::vfio_attach:
      return plain(m.vfio_attach(c, object, other, call.pasid));
    case Verb::detach:
      return plain(m.detach(c, object, call.pasid));
    case Verb::access_create:
      return plain(m.access_create(c, object, call.flags != 0));
    case Verb::access_destroy:
      return plain(m.access_destroy(c, object));
    case Verb::destroy:
      return plain(m.destroy(c, object));
    case Verb::dma_read:
      return plain(m.dma(call.device, call.pasid, call.iova, sim::kMapReadable));
    case Verb::dma_write:
      return plain(m.dma(call.device, call.pasid, call.iova, sim::kMapWriteable));
    case Verb::close:
      m.close(c);
      return {};
    case Verb::count:
      break;
  }
  return {};
}

// One byte through the device's HWPT must be the byte at the address that the model computed.
std::string Duel::dma(const Call& call, const Answered& expected) {
  std::array<std::byte, 1> byte{std::byte{++tag_}};
  const bool writes = call.verb == Verb::dma_write;
  if (!writes && expected.error == 0) machine_->memory().write(expected.value, byte);
  std::array<std::byte, 1> moved = byte;
  if (!writes) moved[0] = std::byte{0};
  const std::string name = device_name(call.device);
  const auto answer = writes ? machine_->dma_write(name, call.iova, moved, call.pasid)
                             : machine_->dma_read(name, call.iova, moved, call.pasid);
  const int error = answer ? 0 : answer.error().errno_value;
  if (tally_ != nullptr) ++tally_->answers[{call.verb, error}];
  if (tally_ != nullptr && error != 0) ++tally_->reasons[{error, std::string(answer.error().reason)}];
  if (error != expected.error) {
    return fmt::format("simulator: {} {}\n  model:     {}", error_text(error), answer ? "" : answer.error().reason,
                       error_text(expected.error));
  }
  if (error != 0) return {};
  if (writes) machine_->memory().read(expected.value, moved);
  return moved == byte ? "" : fmt::format("the byte is not at {:#x}", expected.value);
}

// ------------------------------------------------------------------------------------------------- the state as a
// whole

std::string Duel::compare(Depth depth) {
  for (unsigned c = 0; c < kContexts; ++c) {
    if (contexts_[c] == nullptr) continue;
    if (std::string text = compare_context(c, depth); !text.empty()) return fmt::format("context {}: {}", c, text);
  }
  return {};
}

std::string Duel::compare_context(unsigned context, Depth depth) {
  const sim::Context& ours = *contexts_[context];
  const slow::Context& theirs = model_->context(context);
  if (ours.objects() != model_->objects(context)) {
    return fmt::format("objects {} and {}", fmt::join(ours.objects(), " "), fmt::join(model_->objects(context), " "));
  }
  for (const auto& [id, ioas] : theirs.ioases) {
    const auto answer = ours.ioas_iova_ranges(id);
    const std::vector<Range> ranges = model_->iova_ranges(ioas);
    if (!answer || answer->ranges != ranges || answer->alignment != model_->alignment(theirs, id)) {
      return fmt::format("ioas {}: ranges{} and{}, alignment {} and {}", id, answer ? ranges_text(answer->ranges) : "",
                         ranges_text(ranges), answer ? answer->alignment : 0, model_->alignment(theirs, id));
    }
  }
  for (const auto& [id, unused] : theirs.devices) {
    for (std::uint32_t pasid : {0U, 1U, 2U, 31U}) {
      const auto a = ours.attached(id, pasid);
      const auto b = model_->attached(context, id, pasid);
      if (a != b) return fmt::format("device {} pasid {}: hwpt {} and {}", id, pasid, a.value_or(0), b.value_or(0));
    }
  }
  const std::uint64_t pinned = model_->pinned_pages(context) * slow::kPage;
  if (ours.pinned_bytes() != pinned || ours.locked_bytes() != pinned) {
    return fmt::format("pinned {}, locked {}, and {}", ours.pinned_bytes(), ours.locked_bytes(), pinned);
  }
  for (const auto& [id, unused] : theirs.hwpts) {
    if (std::string text = compare_hwpt(context, id, depth); !text.empty()) return fmt::format("hwpt {}: {}", id, text);
  }
  return {};
}

std::string Duel::compare_hwpt(unsigned context, ObjectId id, Depth depth) {
  const auto ours = contexts_[context]->hwpt(id);
  const slow::Hwpt& theirs = model_->context(context).hwpts.at(id);
  if (!ours) return "no view";
  const HwptQuantities& q = theirs.is;
  const auto differs = [](std::string_view what, std::uint64_t a, std::uint64_t b) {
    return a == b ? std::string() : fmt::format("{} {:#x} and {:#x} ", what, a, b);
  };
  std::string text = differs("id", ours->id, id) + differs("ioas", ours->ioas, theirs.ioas) +
                     differs("automatic", ours->automatic, theirs.automatic) +
                     differs("nest_parent", ours->nest_parent, q[HwptQ::nest_parent]) +
                     differs("pasid", ours->pasid, q[HwptQ::pasid]) +
                     differs("dirty_tracking", ours->dirty_tracking, q[HwptQ::dirty_tracking]) +
                     differs("cc", ours->enforce_cache_coherency, q[HwptQ::enforce_cache_coherency]) +
                     differs("format", static_cast<std::uint64_t>(ours->shape.format), q[HwptQ::format]) +
                     differs("stage", ours->shape.stage, q[HwptQ::stage]) +
                     differs("levels", ours->shape.levels, q[HwptQ::levels]) +
                     differs("page sizes", ours->shape.page_sizes, q[HwptQ::page_sizes]);
  if (ours->allocator != host_.devices[theirs.allocator].id) text += "allocator " + ours->allocator;
  if (!text.empty()) return text;
  const sim::PageTable* table = contexts_[context]->table(id);
  const bool unfinished = q[HwptQ::driver] == static_cast<std::uint64_t>(Driver::smmuv2);  // until a device attaches
  if (table == nullptr) return unfinished ? "" : "no table";
  const slow::Ioas& ioas = model_->context(context).ioases.at(theirs.ioas);
  for (const slow::Area& area : ioas.areas) {
    if (text = compare_area(*table, ioas, area, depth); !text.empty()) return text;
  }
  return {};
}

// Every page, or the ends and a few between; and that nothing is mapped beside.
std::string Duel::compare_area(const sim::PageTable& table, const slow::Ioas& ioas, const slow::Area& area,
                               Depth depth) {
  const std::uint64_t step =
      depth == Depth::every_page ? slow::kPage : std::max(slow::kPage, area.length / 4 & ~(slow::kPage - 1));
  std::vector<std::uint64_t> probes = {area.range().last};
  for (std::uint64_t at = 0; at < area.length; at += step) probes.push_back(area.iova + at);
  if (tally_ != nullptr) tally_->translations += probes.size();
  for (std::uint64_t at : probes) {
    const auto ours = table.iova_to_phys(at);
    const auto theirs = model_->physical(area, at);
    if (ours != theirs)
      return fmt::format("{:#x} translates to {:#x} and {:#x}", at, ours.value_or(0), theirs.value_or(0));
  }
  for (std::uint64_t beside : {area.iova - 1, area.range().last + 1}) {
    const bool doorbell = beside >= 0x08000000 && beside < 0x0a200000;
    if (doorbell || model_->area_at(ioas, beside) != nullptr) continue;
    if (table.iova_to_phys(beside)) return fmt::format("{:#x} translates and is not mapped", beside);
  }
  return {};
}

std::string Duel::finish() {
  for (auto& c : contexts_) c.reset();
  for (unsigned c = 0; c < kContexts; ++c) model_->close(c);
  const std::string left = machine_->world();
  return left == pristine_ ? "" : fmt::format("closing left something behind:\n{}before:\n{}", left, pristine_);
}

// ----------------------------------------------------------------------------------------------------- replay, shrink

std::optional<Difference> replay(const Trace& trace) {
  Duel duel(trace.sketch);
  for (std::size_t i = 0; i < trace.calls.size(); ++i) {
    if (std::string text = duel.perform(trace.calls[i]); !text.empty()) return Difference{i, text};
    if (std::string text = duel.compare(Depth::samples); !text.empty()) return Difference{i, text};
  }
  if (std::string text = duel.compare(Depth::every_page); !text.empty()) return Difference{trace.calls.size(), text};
  if (std::string text = duel.finish(); !text.empty()) return Difference{trace.calls.size(), text};
  return std::nullopt;
}

namespace {

// The trace without calls [first, first + count), the names of results adjusted.
Trace without(const Trace& trace, std::size_t first, std::size_t count) {
  Trace shorter{trace.sketch, {}};
  const auto adjust = [&](Id& id) {
    if (id.result < 0 || static_cast<std::size_t>(id.result) < first) return;
    if (static_cast<std::size_t>(id.result) < first + count)
      id = {};
    else
      id.result -= static_cast<int>(count);
  };
  for (std::size_t i = 0; i < trace.calls.size(); ++i) {
    if (i >= first && i < first + count) continue;
    Call call = trace.calls[i];
    adjust(call.object);
    adjust(call.other);
    adjust(call.fault);
    shorter.calls.push_back(call);
  }
  return shorter;
}

}  // namespace

Trace shrink(Trace trace) {
  if (const auto difference = replay(trace); difference && difference->call + 1 < trace.calls.size()) {
    trace.calls.resize(difference->call + 1);
  }
  for (std::size_t chunk = std::max<std::size_t>(trace.calls.size() / 2, 1);; chunk /= 2) {
    for (std::size_t first = trace.calls.size(); first-- > 0;) {
      if (first + chunk > trace.calls.size()) continue;
      if (Trace shorter = without(trace, first, chunk); replay(shorter)) trace = std::move(shorter);
    }
    if (chunk == 1) break;
  }
  return trace;
}

}  // namespace ioplan::traces
