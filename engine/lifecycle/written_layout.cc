#include "engine/lifecycle/written_layout.h"

#include <algorithm>
#include <map>

#include "engine/lifecycle/container_domains.h"
#include "engine/lifecycle/layout.h"
#include "engine/solve/solver.h"

namespace ioplan {

namespace {

// One VM's arrangement in the solver's words: every HWPT is an offer of its own.
class Translation {
 public:
  Translation(const Request& request, VmIndex vm, const Needs& needs, const Law& law) : request_(request), law_(law) {
    model_.problem = make_problem(request, vm, needs, law);
    for (std::uint32_t i = 0; i < model_.problem.items.size(); ++i) {
      for (const DeviceIndex d : model_.problem.items[i].assigned) item_of_[d] = i;
    }
  }

  void add(const ArrangedHwpt& arranged) {
    const DeviceIndex allocator = *request_.host.find_device(arranged.allocator);
    const HwptQuantities q = law_.allocate(law_.describe(request_.host, allocator), arranged.flags);
    SolvedHwpt hwpt;
    for (const std::string& id : arranged.devices) hwpt.items.push_back(item_of_.at(*request_.host.find_device(id)));
    std::ranges::sort(hwpt.items);
    hwpt.items.erase(std::unique(hwpt.items.begin(), hwpt.items.end()), hwpt.items.end());
    hwpt.offer = static_cast<std::uint32_t>(model_.offers.size());
    hwpt.allocator = allocator;
    model_.offers.push_back(
        {q, {}, {}, {}, page_table_bytes_of(q, model_.problem), unneeded_flags_of(q, model_.problem)});
    hwpts_.push_back(std::move(hwpt));
  }

  void finish(Solved& solved) {
    solved.vms.push_back(std::move(model_));
    solved.hwpts.push_back(std::move(hwpts_));
  }

 private:
  const Request& request_;
  const Law& law_;
  VmModel model_;
  std::vector<SolvedHwpt> hwpts_;
  std::map<DeviceIndex, std::uint32_t> item_of_;
};

}  // namespace

Plan write_layout(const Request& request, const std::vector<std::vector<ArrangedHwpt>>& by_vm,
                  const std::vector<Needs>& needs, const Law& law) {
  Solved solved;
  std::uint64_t spaces = 0;
  for (std::size_t v = 0; v < request.vms.size(); ++v) {
    Translation translation(request, VmIndex(v), needs[v], law);
    for (const ArrangedHwpt& h : by_vm[v]) translation.add(h);
    translation.finish(solved);
    spaces += !request.vms[v].devices.empty() || !by_vm[v].empty();
  }
  solved.values = values_of(solved);
  solved.values[Objective::ioas] = spaces;
  solved.lower_bound = solved.values[Objective::hwpts] == 0 ? 0 : 1;
  if (law.interface() == KernelInterface::iommufd) return write_plan(request, solved, solved, law);
  solved.joining.resize(request.vms.size());
  Plan plan = write_plan(request, solved, solved, law);
  std::vector<std::string> order;
  for (const PlannedHwpt& h : plan.hwpts) order.push_back(h.id);
  plan.steps = container_steps(plan, order, GroupLaw(request.host, law));
  return plan;
}

std::vector<ArrangedHwpt> arranged_now(const Plan& running, const std::string& vm, const Host& host, const Law& law) {
  const PlannedIoas* ioas = space_of(running, vm);
  std::vector<ArrangedHwpt> hwpts;
  for (const PlannedHwpt& h : running.hwpts) {
    if (ioas != nullptr && h.ioas == ioas->id) hwpts.push_back({h.id, h.allocator, h.flags, h.devices});
  }
  if (ioas == nullptr || law.interface() == KernelInterface::iommufd) return hwpts;
  const GroupLaw groups(host, law);
  const ContainerDomains domains(groups, running, ioas->id);
  std::ranges::sort(hwpts, {}, [&](const ArrangedHwpt& h) { return domains.find(h.id) - domains.in_order().data(); });
  return hwpts;
}

}  // namespace ioplan
