// What is behind one open of /dev/iommu: objects by id, who refers to whom, and the groups that are bound here.
//
// `users` counts references to an object by others, as Linux does, less the one that the id itself holds: destroy needs
// 0. A bound device and an access are used by the driver that made them. HWPTs refer to their IOAS and fault queue,
// attachments to their HWPT and device. Held by tests/sim_iommufd_test.cc.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "backends/sim/io_page_table.h"
#include "backends/sim/iommufd.h"
#include "backends/sim/machine_state.h"

namespace ioplan::sim {

enum class ObjectKind : std::uint8_t { device, ioas, hwpt, access, fault_queue };

struct Object {
  explicit Object(ObjectKind k) : kind(k) {}
  virtual ~Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  const ObjectKind kind;
  ObjectId id = 0;
  unsigned users = 0;
};

struct Hwpt;

struct Ioas : Object {
  static constexpr ObjectKind kKind = ObjectKind::ioas;
  explicit Ioas(const PageSupply& supply) : Object(kKind), table(supply) {}

  IoPageTable table;
  std::vector<Hwpt*> hwpts;  // oldest first
};

struct FaultQueue : Object {
  static constexpr ObjectKind kKind = ObjectKind::fault_queue;
  FaultQueue() : Object(kKind) {}
};

struct Hwpt : Object {
  static constexpr ObjectKind kKind = ObjectKind::hwpt;
  explicit Hwpt(Ioas& of) : Object(kKind), ioas(of) {}

  Ioas& ioas;
  std::unique_ptr<Domain> domain;
  FaultQueue* fault = nullptr;
  bool automatic = false;
  bool nest_parent = false;
  bool pasid = false;  // allocated with the flag
};

struct GroupUse;

struct BoundDevice : Object {
  static constexpr ObjectKind kKind = ObjectKind::device;
  BoundDevice(DeviceState& of, GroupUse& use) : Object(kKind), device(of), group(use) { users = 1; }

  DeviceState& device;
  GroupUse& group;
};

struct Access : Object {
  static constexpr ObjectKind kKind = ObjectKind::access;
  Access(Ioas& of, std::uint64_t asks) : Object(kKind), ioas(of), alignment(asks) { users = 1; }

  Ioas& ioas;
  std::uint64_t alignment;
};

// One HWPT for all devices of a group that are attached, by PASID (0: the RID).
struct Attachment {
  Hwpt* hwpt = nullptr;
  std::map<ObjectId, BoundDevice*> devices;
};

// A group some of whose devices are bound in this context: struct iommufd_group.
struct GroupUse {
  explicit GroupUse(GroupState& of) : group(of) {}

  GroupState& group;
  unsigned devices = 0;                  // bound
  std::optional<std::uint64_t> msi_window;  // software MSI: where its pages go
  std::map<std::uint32_t, Attachment> attachments;
};

struct Context::State final : Participant {
  enum class Change : std::uint8_t { attach, replace };

  explicit State(Machine::State& m) : machine(m) {}

  Machine::State& machine;
  std::map<ObjectId, std::unique_ptr<Object>> objects;
  ObjectId lowest_free = 1;  // id
  std::map<std::uint32_t, GroupUse> groups;
  MemlockAccount account = MemlockAccount::user;
  std::set<std::uint64_t> msi_pages;  // IOVAs; given out once, for the life of the context

  template <class T>
  T* find(ObjectId id) const {
    const auto it = objects.find(id);
    return it != objects.end() && it->second->kind == T::kKind ? static_cast<T*>(it->second.get()) : nullptr;
  }

  template <class Visit>
  void each_ioas(Visit visit) const {
    for (const auto& [id, object] : objects) {
      if (const Ioas* ioas = find<Ioas>(id)) visit(*ioas);
    }
  }

  // Gives the object the lowest free id. Whoever makes one asks `exhausted` before it touches anything.
  ObjectId add(std::unique_ptr<Object> object);
  bool exhausted() { return machine.failures.strikes(); }

  // Unused objects only; `erase` is the end of it.
  void remove(Object& object);
  void erase(ObjectId id);
  void close_device(BoundDevice& device);

  // context_hwpt.cc. `attaching`: the device attaches first, with this PASID (iommufd_hwpt_paging_alloc).
  Answer<std::unique_ptr<Hwpt>> make_hwpt(Ioas& ioas, BoundDevice& device, std::uint32_t flags,
                                          std::optional<std::uint32_t> attaching);
  void free_hwpt(Hwpt& hwpt);  // all but the object
  void put_hwpt(Hwpt& hwpt);   // drops a reference; the last one to an automatic HWPT takes it along

  // context_attach.cc
  Answer<ObjectId> change(ObjectId device, ObjectId pt, std::uint32_t pasid, Change change);
  Answer<ObjectId> change_automatic(BoundDevice& device, Ioas& ioas, std::uint32_t pasid, Change change);
  Answer<void> change_to(BoundDevice& device, Hwpt& hwpt, std::uint32_t pasid, Change change);
  Answer<void> attach(BoundDevice& device, Hwpt& hwpt, std::uint32_t pasid);
  Answer<void> replace(BoundDevice& device, Hwpt& hwpt, std::uint32_t pasid);
  void detach(BoundDevice& device, std::uint32_t pasid);
  bool is_attached(const BoundDevice& device, std::uint32_t pasid) const;

  void append_text(std::string& text) const override;

 private:
  Answer<void> move_group(BoundDevice& device, Hwpt& hwpt, std::uint32_t pasid, Hwpt* old);
  Answer<void> move_pasid(BoundDevice& device, Hwpt& hwpt, std::uint32_t pasid, const Hwpt* old);
  Answer<void> check_owner(const DeviceState& device, const Hwpt& hwpt) const;
  Answer<bool> install_doorbell(const GroupUse& group, Hwpt& hwpt);
  void remove_doorbell(const GroupUse& group, Hwpt& hwpt);
};

}  // namespace ioplan::sim
