#include "tests/kernel/guest/sim_subject.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <utility>

#include "backends/sim/iommufd.h"
#include "backends/sim/walker.h"
#include "constraints/kernel_law.h"
#include "tests/kernel/guest/handles.h"

namespace ioplan::kernel_test {

namespace {

struct BoundDevice {
  sim::ObjectId id = 0;
  sim::ObjectId own_ioas = 0;  // of a mock device
};

class SimSubject final : public Subject {
 public:
  explicit SimSubject(const Host& host) : host_(host), devices_(host.devices.size()), handles_(host.devices.size()) {
    auto machine = sim::Machine::create(host, kernel_law());
    if (!machine) {
      std::fprintf(stderr, "%s\n", to_text(machine.error()).c_str());
      std::abort();
    }
    machine_ = std::move(*machine);
    context_ = machine_->open();
    buffer_ = machine_->memory().allocate(kBufferBytes, kHugePage);
    read_only_ = machine_->memory().allocate(kBufferBytes, kHugePage, false);
  }

  Reply bind(unsigned device) override {
    BoundDevice& d = devices_[device];
    if (d.id != 0) return {EBUSY};
    const auto bound = context_->bind(host_.devices[device].id);
    if (!bound) return {bound.error().errno_value};
    d.id = *bound;
    handles_.bound(device, d.id);
    if (!is_mock(device)) return {};
    d.own_ioas = *context_->ioas_alloc();
    if (const auto attached = context_->attach(d.id, d.own_ioas); !attached) return {attached.error().errno_value};
    return {};
  }

  Reply unbind(unsigned device) override {
    BoundDevice& d = devices_[device];
    if (d.id == 0) return {ENOENT};
    if (const auto done = context_->unbind(d.id); !done) return {done.error().errno_value};
    if (d.own_ioas != 0) (void)context_->destroy(d.own_ioas);
    handles_.detach(device);
    handles_.bound(device, kNoSuchId);
    d = {};
    return {};
  }

  Reply ioas_alloc() override { return made(context_->ioas_alloc(), TargetKind::ioas); }
  Reply allow_iovas(unsigned ioas, std::span<const Range> ranges) override {
    return plain(context_->ioas_allow_iovas(handles_.ioas(ioas), ranges));
  }

  Reply iova_ranges(unsigned ioas) override {
    const auto answer = context_->ioas_iova_ranges(handles_.ioas(ioas));
    if (!answer) return {answer.error().errno_value};
    Reply reply{0, answer->alignment};
    for (const Range& r : answer->ranges) reply.words.insert(reply.words.end(), {r.start, r.last});
    return reply;
  }

  Reply map(unsigned ioas, std::uint32_t flags, Source source, std::uint64_t offset, std::uint64_t length, std::uint64_t iova) override {
    const sim::ObjectId id = handles_.ioas(ioas);
    if (source == Source::file) return valued(context_->ioas_map_file(id, flags, buffer_.fd, offset, length, iova));
    const std::uint64_t base = source == Source::memory ? buffer_.user_va : source == Source::read_only ? read_only_.user_va : kNowhere;
    return valued(context_->ioas_map(id, flags, base + offset, length, iova));
  }
  Reply copy(unsigned dst, unsigned src, std::uint32_t flags, std::uint64_t length, std::uint64_t dst_iova, std::uint64_t src_iova) override {
    return valued(context_->ioas_copy(handles_.ioas(dst), handles_.ioas(src), flags, length, dst_iova, src_iova));
  }
  Reply unmap(unsigned ioas, std::uint64_t iova, std::uint64_t length) override {
    return valued(context_->ioas_unmap(handles_.ioas(ioas), iova, length));
  }
  Reply set_huge_pages(unsigned ioas, std::uint64_t value) override {
    const auto done = context_->set_option(sim::Option::huge_pages, handles_.ioas(ioas), value);
    return done ? Reply{0, value} : Reply{done.error().errno_value};
  }
  Reply get_huge_pages(unsigned ioas) override { return valued(context_->get_option(sim::Option::huge_pages, handles_.ioas(ioas))); }
  Reply set_rlimit_mode(std::uint64_t value) override {
    const auto done = context_->set_option(sim::Option::rlimit_mode, 0, value);
    return done ? Reply{0, value} : Reply{done.error().errno_value};
  }

  Reply hw_info(unsigned device) override {
    const auto info = context_->get_hw_info(devices_[device].id);
    if (!info) return {info.error().errno_value};
    Reply reply{0, info->max_pasid_log2, {info->capabilities}};
    if (info->type == 0 || info->type == kAmdHwInfo) return reply;
    reply.words.push_back(info->type);
    reply.words.insert(reply.words.end(), info->registers.begin(), info->registers.end());
    return reply;
  }

  Reply fault_queue_alloc() override { return made(context_->fault_queue_alloc(), TargetKind::fault_queue); }
  Reply hwpt_alloc(unsigned device, Target pt, std::uint32_t flags, unsigned fault_queue) override {
    const auto fault = handles_.id({TargetKind::fault_queue, fault_queue});
    return made(context_->hwpt_alloc(devices_[device].id, handles_.id(pt), flags, fault), TargetKind::hwpt);
  }

  Reply attach(unsigned device, Target target, std::uint32_t pasid) override {
    const BoundDevice& d = devices_[device];
    if (d.id == 0) return {ENOENT};
    const auto answer = context_->vfio_attach(d.id, handles_.id(target), pasid);
    if (!answer) return {answer.error().errno_value};
    return pasid == 0 ? Reply{0, handles_.attach(device, *answer)} : Reply{};
  }

  Reply detach(unsigned device, std::uint32_t pasid) override {
    const BoundDevice& d = devices_[device];
    if (d.id == 0) return {ENOENT};
    if (is_mock(device) && pasid == 0) return {EOPNOTSUPP};
    if (pasid == 0) handles_.detach(device);
    if (!context_->attached(d.id, pasid)) return {};  // as VFIO answers
    return plain(context_->detach(d.id, pasid));
  }

  Reply set_dirty_tracking(unsigned hwpt, std::uint32_t enable) override {
    const Reply reply = plain(context_->hwpt_set_dirty_tracking(handles_.hwpt(hwpt), enable != 0));
    if (reply.errno_value == 0) (enable != 0 ? void(tracking_.insert(hwpt)) : void(tracking_.erase(hwpt)));
    return reply;
  }

  Reply get_dirty_bitmap(unsigned hwpt, std::uint32_t flags, std::uint64_t iova, std::uint64_t length, std::uint64_t page_size) override {
    Reply reply;
    reply.words.resize(page_size == 0 ? 1 : length / page_size / 64 + 1);
    const auto mode = flags != 0 ? sim::DirtyRead::keep : sim::DirtyRead::clear;
    if (is_read_wrong(handles_.hwpt(hwpt), iova, length, page_size)) return {ENOTRECOVERABLE};
    const auto done = context_->hwpt_get_dirty_bitmap(handles_.hwpt(hwpt), mode, iova, length, page_size, reply.words);
    return done ? reply : Reply{done.error().errno_value};
  }

  Reply destroy(Target target) override {
    const Reply reply = plain(context_->destroy(handles_.id(target)));
    if (reply.errno_value != 0) return reply;
    handles_.forget(target);
    if (target.kind == TargetKind::hwpt) tracking_.erase(target.handle);
    return reply;
  }

  Reply reserve(unsigned ioas, std::uint64_t start, std::uint64_t length) override {
    return plain(context_->ioas_add_reserved(handles_.ioas(ioas), start, length));
  }

  Reply access_create(unsigned ioas, std::uint32_t pins) override {
    const auto made = context_->access_create(handles_.ioas(ioas), pins != 0);
    if (!made) return {made.error().errno_value};
    accesses_.push_back(*made);
    return {0, accesses_.size() - 1};
  }
  Reply access_destroy(unsigned access) override {
    if (access >= accesses_.size() || accesses_[access] == kNoSuchId) return {ENOENT};
    return plain(context_->access_destroy(std::exchange(accesses_[access], kNoSuchId)));
  }

  // IOMMU_TEST_OP_MD_CHECK_MAP.
  Reply check_map(unsigned hwpt, std::uint64_t offset, std::uint64_t length, std::uint64_t iova) override {
    const sim::PageTable* table = context_->table(handles_.hwpt(hwpt));
    if (table == nullptr) return {ENOENT};
    if (!is_mock(*table) || ((offset | length | iova) % kMockPage) != 0) return {EINVAL};
    std::vector<sim::Extent> extents;
    machine_->memory().extents(buffer_, offset, length, extents);
    for (const sim::Extent& e : extents) {
      for (std::uint64_t at = 0; at < e.size; at += kMockPage, iova += kMockPage) {
        if (table->iova_to_phys(iova) != e.pa + at) return {EINVAL};
      }
    }
    return {};
  }

  // IOMMU_TEST_OP_DIRTY, as a device would do it: what is not writeable stays clean.
  Reply write_pages(unsigned hwpt, std::uint64_t iova, std::uint64_t pages) override {
    if (iova % kPage != 0) return {EINVAL};
    const sim::PageTable* table = context_->table(handles_.hwpt(hwpt));
    if (table == nullptr) return {ENOENT};
    if (!is_mock(*table) || !tracking_.contains(hwpt)) return {EINVAL};
    for (unsigned i = 0; i < 64; ++i) {
      const std::uint64_t bit = std::uint64_t{1} << i;
      if ((pages & bit) == 0) continue;
      const auto done = sim::walk(machine_->tables(), table->shape(), table->root(), iova + i * kPage, sim::DmaAccess::write);
      if (!done.fault.empty()) pages &= ~bit;
    }
    return {0, pages};
  }

  Reply dma_write(unsigned device, std::uint64_t, std::uint64_t iova) override {
    return plain(machine_->dma_write(host_.devices[device].id, iova, std::array<std::byte, 64>{}));
  }

 private:
  static constexpr std::uint64_t kPage = 4096, kMockPage = 2048, kMockLargePage = 512 * kMockPage, kHugePage = std::uint64_t{2} << 20;
  static constexpr std::uint32_t kAmdHwInfo = 4;
  static constexpr std::uint64_t kNowhere = std::uint64_t{1} << 46;  // no memory is allocated there

  static bool is_mock(const sim::PageTable& table) { return table.shape().format == PageTableFormat::mock; }
  bool is_mock(unsigned device) const { return host_.unit(*host_.devices[device].unit).driver == Driver::mock; }

  // Where Linux 7.2.13 reads dirty bits wrong (README.md): it takes a leaf that lies across an end of the range for one
  // that begins at the range's start, and marks bits behind the range, even behind the caller's bitmap; and it leaves out
  // the last entry of a leaf of several: the last 2 KiB of one below 1 MiB, half of one of 2 MiB.
  bool is_read_wrong(sim::ObjectId hwpt, std::uint64_t iova, std::uint64_t length, std::uint64_t page_size) const {
    const sim::PageTable* table = context_->table(hwpt);
    if (table == nullptr || !is_mock(*table) || page_size == 0) return false;
    const std::uint64_t end = iova + length;
    for (std::uint64_t at = iova, step = kPage; at < end; at += step) {
      const sim::Translation leaf = sim::probe(machine_->tables(), table->shape(), table->root(), at);
      step = kPage;
      if (!leaf.fault.empty()) continue;
      if (page_size == kMockPage || (at & (leaf.page_size - 1)) != 0 || leaf.page_size > kMockLargePage) return true;
      if (end - at < leaf.page_size) return true;
      step = std::max(kPage, leaf.page_size);
    }
    return false;
  }

  static Reply plain(const sim::Answer<void>& answer) { return answer ? Reply{} : Reply{answer.error().errno_value}; }
  static Reply valued(const sim::Answer<std::uint64_t>& answer) {
    return answer ? Reply{0, *answer} : Reply{answer.error().errno_value};
  }
  Reply made(const sim::Answer<sim::ObjectId>& answer, TargetKind kind) {
    return answer ? Reply{0, handles_.add(kind, *answer)} : Reply{answer.error().errno_value};
  }

  const Host& host_;
  std::vector<BoundDevice> devices_;
  Handles handles_;
  std::unique_ptr<sim::Machine> machine_;
  std::unique_ptr<sim::Context> context_;
  sim::Memory buffer_, read_only_;
  std::vector<sim::ObjectId> accesses_;  // by handle; kNoSuchId: destroyed
  std::set<unsigned> tracking_;          // HWPTs, by handle, whose dirty pages are tracked
};

}  // namespace

std::unique_ptr<Subject> make_sim_subject(const Host& host) { return std::make_unique<SimSubject>(host); }

}  // namespace ioplan::kernel_test
