/*
 * Two devices, each alone in its group, and iommufd's way to a HWPT and to an attachment. Included by every driver's
 * file behind what was cut out of the kernel (attach.recipe), which it calls.
 *
 * A driver's file says which unit a device is behind (judge_units), fills what its functions read, and tells what a
 * domain is (judge_read_domain).
 */
#include "answers.h"

static struct judge_machine {
  struct device device;
  struct dev_iommu dev_iommu;
  struct iommu_device iommu_device;
  struct iommu_fwspec fwspec;
  struct iommu_group group;
  struct group_device group_device;
  struct iommufd_device iommufd_device;
} judge_machines[JUDGE_UNITS + 1]; /* the last one belongs to another driver */

static struct iommufd_ctx judge_context;
static struct iommufd_ioas judge_ioas;
static struct iommufd_hwpt_paging* judge_hwpt;

struct iommufd_object* _iommufd_object_alloc(struct iommufd_ctx* context, size_t size, enum iommufd_object_type type) {
  struct iommufd_object* object = calloc(1, size);
  object->type = type;
  return object;
}

static void judge_free_hwpt(struct iommufd_hwpt_paging* hwpt) {
  struct iommu_domain* domain = hwpt->common.domain;
  if (domain) domain->ops->free(domain);
  free(hwpt);
}

void iommufd_object_abort_and_destroy(struct iommufd_ctx* context, struct iommufd_object* object) {
  judge_free_hwpt(container_of(object, struct iommufd_hwpt_paging, common.obj));
}

int iopt_table_add_domain(struct io_pagetable* iopt, struct iommu_domain* domain) { return 0; }

static void judge_forget_hwpt(void) {
  if (judge_hwpt) judge_free_hwpt(judge_hwpt);
  judge_hwpt = NULL;
}

/* As the core leaves a device that nobody has attached yet. */
static void judge_place(unsigned unit, const struct iommu_ops* ops, void* driver_data) {
  struct judge_machine* m = &judge_machines[unit];
  *m = (struct judge_machine){};
  m->device.iommu = &m->dev_iommu;
  m->device.iommu_group = &m->group;
  m->dev_iommu.iommu_dev = &m->iommu_device;
  m->dev_iommu.fwspec = &m->fwspec;
  m->dev_iommu.priv = driver_data;
  m->iommu_device.ops = ops;
  m->group_device.dev = &m->device;
  INIT_LIST_HEAD(&m->group.devices);
  list_add_tail(&m->group_device.list, &m->group.devices);
  m->iommufd_device.dev = &m->device;
}

static const struct iommu_ops judge_other_driver;
static void judge_place_foreign(void) { judge_place(JUDGE_UNITS, &judge_other_driver, NULL); }

static void judge_describe(unsigned unit, struct judge_device* answer) {
  struct device* dev = &judge_machines[unit].device;
  answer->cache_coherency = device_iommu_capable(dev, IOMMU_CAP_CACHE_COHERENCY);
  answer->enforce_cache_coherency = device_iommu_capable(dev, IOMMU_CAP_ENFORCE_CACHE_COHERENCY);
  answer->dirty_tracking = device_iommu_capable(dev, IOMMU_CAP_DIRTY_TRACKING);
}

static void judge_read_domain(struct iommu_domain* domain, struct judge_hwpt* answer);

static void judge_allocate(unsigned unit, unsigned flags, struct judge_hwpt* answer) {
  struct iommufd_device* device = &judge_machines[unit].iommufd_device;
  struct iommufd_hwpt_paging* hwpt;
  judge_forget_hwpt();
  *answer = (struct judge_hwpt){};
  INIT_LIST_HEAD(&judge_ioas.hwpt_list);
  device->enforce_cache_coherency = device_iommu_capable(device->dev, IOMMU_CAP_ENFORCE_CACHE_COHERENCY);
  hwpt = iommufd_hwpt_paging_alloc(&judge_context, &judge_ioas, device, IOMMU_NO_PASID, flags, false, NULL);
  if (IS_ERR(hwpt)) {
    answer->error = (int)-PTR_ERR(hwpt);
    return;
  }
  judge_hwpt = hwpt;
  answer->aperture_start = hwpt->common.domain->geometry.aperture_start;
  answer->aperture_last = hwpt->common.domain->geometry.aperture_end;
  answer->page_sizes = hwpt->common.domain->pgsize_bitmap;
  answer->dirty_tracking = hwpt->common.domain->dirty_ops != NULL;
  answer->nest_parent = hwpt->nest_parent;
  answer->enforce_cache_coherency = hwpt->enforce_cache_coherency;
  answer->coherent_walk = 1;
  answer->takes_read_only = 1;
  judge_read_domain(hwpt->common.domain, answer);
}

static int judge_attach(unsigned unit) {
  struct iommu_group* group = &judge_machines[unit].group;
  const int result = __iommu_attach_group(judge_hwpt->common.domain, group);
  group->domain = NULL;
  return -result;
}
