#include "tests/kernel/guest/sim_subject.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "backends/sim/iommufd.h"
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
    buffer_ = machine_->memory().allocate(kBufferBytes, std::uint64_t{2} << 20);
  }

  Reply bind(unsigned device) override {
    BoundDevice& d = devices_[device];
    if (d.id != 0) return {EBUSY};
    const auto bound = context_->bind(host_.devices[device].id);
    if (!bound) return {bound.error().errno_value};
    d.id = *bound;
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

  Reply map(unsigned ioas, std::uint32_t flags, std::uint64_t offset, std::uint64_t length, std::uint64_t iova) override {
    return valued(context_->ioas_map(handles_.ioas(ioas), flags, buffer_.user_va + offset, length, iova));
  }
  Reply copy(unsigned dst, unsigned src, std::uint32_t flags, std::uint64_t length, std::uint64_t dst_iova, std::uint64_t src_iova) override {
    return valued(context_->ioas_copy(handles_.ioas(dst), handles_.ioas(src), flags, length, dst_iova, src_iova));
  }
  Reply unmap(unsigned ioas, std::uint64_t iova, std::uint64_t length) override {
    return valued(context_->ioas_unmap(handles_.ioas(ioas), iova, length));
  }
  Reply huge_pages(unsigned ioas, std::uint64_t value) override {
    return plain(context_->set_option(sim::Option::huge_pages, handles_.ioas(ioas), value));
  }
  Reply hwpt_alloc(unsigned device, unsigned ioas, std::uint32_t flags) override {
    return made(context_->hwpt_alloc(devices_[device].id, handles_.ioas(ioas), flags), TargetKind::hwpt);
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
    return plain(context_->hwpt_set_dirty_tracking(handles_.hwpt(hwpt), enable != 0));
  }

  Reply get_dirty_bitmap(unsigned hwpt, std::uint64_t iova, std::uint64_t length, std::uint64_t page_size) override {
    Reply reply;
    reply.words.resize(page_size == 0 ? 1 : length / page_size / 64 + 1);
    const auto done = context_->hwpt_get_dirty_bitmap(handles_.hwpt(hwpt), sim::DirtyRead::clear, iova, length, page_size, reply.words);
    return done ? reply : Reply{done.error().errno_value};
  }

  Reply destroy(Target target) override {
    const Reply reply = plain(context_->destroy(handles_.id(target)));
    if (reply.errno_value == 0) handles_.forget(target);
    return reply;
  }

 private:
  bool is_mock(unsigned device) const { return host_.unit(*host_.devices[device].unit).driver == Driver::mock; }

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
  sim::Memory buffer_;
};

}  // namespace

std::unique_ptr<Subject> make_sim_subject(const Host& host) { return std::make_unique<SimSubject>(host); }

}  // namespace ioplan::kernel_test
