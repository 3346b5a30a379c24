/*
 * Memory for page tables, and what a kernel function says when it meets what cannot happen. One page in front of every
 * table holds the kernel's descriptor of it.
 */
#define CONFIG_X86 1
#include "iommu-pages.h"

unsigned long judge_page_size = 4096;

enum { PAGE = 4096, LARGEST = PAGE << 10 }; /* MAX_PAGE_ORDER of x86 and of arm64 with pages of 4 KiB */

void* judge_page_of(void* virt) { return (char*)virt - PAGE; }

void* iommu_alloc_pages_node_sz(int nid, gfp_t gfp, size_t size) {
  const size_t pages = (size + PAGE - 1) & ~(size_t)(PAGE - 1);
  char* block = size > LARGEST ? NULL : aligned_alloc(PAGE, PAGE + pages);
  (void)nid, (void)gfp;
  if (!block) return NULL;
  memset(block, 0, sizeof(struct ioptdesc));
  memset(block + PAGE, 0, size);
  return block + PAGE;
}

void iommu_free_pages(void* virt) {
  if (virt) free(judge_page_of(virt));
}

void iommu_put_pages_list(struct iommu_pages_list* list) {
  struct ioptdesc *page, *next;
  list_for_each_entry_safe(page, next, &list->pages, iopt_freelist_elm) free(page);
}

int iommu_pages_start_incoherent(void* virt, struct device* dma_dev) {
  (void)virt, (void)dma_dev;
  return 0;
}

int iommu_pages_start_incoherent_list(struct iommu_pages_list* list, struct device* dma_dev) {
  (void)list, (void)dma_dev;
  return 0;
}

void judge_missing(const char* function, const char* file) {
  fprintf(stderr, "law: the judged functions call `%s` of %s, which is neither taken nor replaced\n", function, file);
  abort();
}

bool judge_warning(bool happened, const char* condition, const char* function) {
  if (!happened) return false;
  fprintf(stderr, "law: `%s` warns: %s\n", function, condition);
  abort();
}
