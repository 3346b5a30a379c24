/* drivers/iommu/virtio-iommu.c, behind the seam of answers.h. The driver probes a configuration space that is made
 * here. */
#include <linux/iommu.h>

#include "answers.h"

#define __virtio_le16 __le16
#define VIRTIO_F_VERSION_1 32
struct virtqueue;
struct virtio_device;
struct virtio_config_ops {
  void (*del_vqs)(struct virtio_device* vdev);
};
struct virtio_device {
  struct device dev;
  const struct virtio_config_ops* config;
  void* priv;
  u64 features;
  const struct virtio_iommu_config* space;
};
#define virtio_has_feature(vdev, bit) ((vdev)->features >> (bit)&1)
#define virtio_cread_le(vdev, type, member, target) ((void)(*(target) = (vdev)->space->member))
#define virtio_cread_le_feature(vdev, bit, type, member, target) \
  ((void)(virtio_has_feature(vdev, bit) && (*(target) = (vdev)->space->member, true)))
#define virtio_device_ready(vdev) ((void)(vdev))
#define virtio_bus_name(vdev) "virtio"

/* What talks to the device. */
#define viommu_init_vqs(viommu) 0
#define viommu_fill_evtq(viommu) 0
#define viommu_send_attach_req(viommu, dev, request) ((void)(request), 0)
#define viommu_replay_mappings(domain) 0
#define viommu_del_mappings(domain, iova, last) ((void)(domain))
#define iommu_device_sysfs_add(...) 0
#define iommu_device_register(...) ((void)0)

/* One unit at a time is probed; it keeps what it allocates. */
static void* judge_viommu;
#define devm_kzalloc(dev, size, gfp) (judge_viommu = calloc(1, size))

#include "virtio.inc"

#include "iommufd.h"

static struct viommu_dev* units[JUDGE_UNITS];
static struct viommu_endpoint endpoints[JUDGE_UNITS];
static bool started;

static void delete_queues(struct virtio_device* vdev) { (void)vdev; }

static bool probe(unsigned i, const struct judge_unit* unit) {
  static const struct virtio_config_ops operations = {delete_queues};
  const struct virtio_iommu_config space = {.page_size_mask = unit->page_sizes,
                                            .input_range = {unit->input_start, unit->input_last}};
  struct virtio_device device = {.config = &operations, .space = &space};
  device.features = 1ULL << VIRTIO_F_VERSION_1 | 1 << VIRTIO_IOMMU_F_MAP_UNMAP;
  if (unit->has_input_range) device.features |= 1 << VIRTIO_IOMMU_F_INPUT_RANGE;
  free(units[i]);
  const int error = viommu_probe(&device);
  units[i] = judge_viommu;
  return error == 0;
}

static void boot(const struct judge_host* host) {
  judge_forget_hwpt();
  judge_page_size = host->page_size;
  started = true;
  judge_place_foreign();
  for (unsigned i = 0; i < JUDGE_UNITS; ++i) {
    started &= probe(i, &host->units[i]);
    judge_place(i, &viommu_ops, &endpoints[i]);
    endpoints[i] = (struct viommu_endpoint){.dev = &judge_machines[i].device, .viommu = units[host->one_unit ? 0 : i]};
  }
}

static void describe(unsigned unit, struct judge_device* answer) {
  *answer = (struct judge_device){.usable = started};
  judge_describe(unit, answer);
}

/* The tables are the host's: the driver knows neither their levels nor their width. */
static void judge_read_domain(struct iommu_domain* domain, struct judge_hwpt* answer) {
  (void)domain;
  answer->stage = 1;
}

const struct judge judge = {"virtio", boot, describe, judge_allocate, judge_attach};
