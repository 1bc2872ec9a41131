/*
 * Takes memory of the GPU step by step, beyond the limit of the container it runs in, and says how far it came.
 *
 *     gpu-trial BYTES
 *
 * One JSON object a line: what the GPU is, then after each step how much was taken and what the container is charged for by then.
 * Whoever reads them sees where it ended: at the end, at a refusal of the driver, or in the middle, because the kernel killed it.
 * The driver's library is looked for when it runs, so that this is built where no driver is.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#define STEP_BYTES (64ULL << 20)
#define UNKNOWN (-1LL)
#define FAILED 3
#define NO_DRIVER 4
#define MAJOR 75
#define MINOR 76

typedef int result;
typedef unsigned long long pointer;

static void *driver;

static void *function(const char *name)
{
	void *found = dlsym(driver, name);

	if (!found) {
		printf("{\"stage\": \"failed\", \"call\": \"%s\", \"code\": -1}\n", name);
		exit(NO_DRIVER);
	}
	return found;
}

static void check(const char *call, result code, unsigned long long taken)
{
	if (!code)
		return;
	printf("{\"stage\": \"failed\", \"call\": \"%s\", \"code\": %d, \"taken_bytes\": %llu}\n", call, code, taken);
	exit(FAILED);
}

/* What the kernel counts for this container, in version 2 of cgroups or in version 1. */
static long long charged(void)
{
	static const char *const files[] = {"/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes"};

	for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
		FILE *file = fopen(files[i], "r");
		long long bytes = UNKNOWN;

		if (!file)
			continue;
		if (fscanf(file, "%lld", &bytes) != 1)
			bytes = UNKNOWN;
		fclose(file);
		if (bytes != UNKNOWN)
			return bytes;
	}
	return UNKNOWN;
}

static void describe(int gpu, int count)
{
	result (*get_name)(char *, int, int) = function("cuDeviceGetName");
	result (*get)(int *, int, int) = function("cuDeviceGetAttribute");
	result (*get_total)(size_t *, int) = function("cuDeviceTotalMem_v2");
	result (*get_version)(int *) = function("cuDriverGetVersion");
	char name[128] = "";
	int major = 0, minor = 0, version = 0;
	size_t total = 0;

	check("cuDeviceGetName", get_name(name, sizeof name, gpu), 0);
	check("cuDeviceGetAttribute", get(&major, MAJOR, gpu), 0);
	check("cuDeviceGetAttribute", get(&minor, MINOR, gpu), 0);
	check("cuDeviceTotalMem", get_total(&total, gpu), 0);
	check("cuDriverGetVersion", get_version(&version), 0);
	for (char *c = name; *c; c++)
		if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ')
			*c = ' ';
	printf("{\"stage\": \"device\", \"gpus\": %d, \"name\": \"%s\", \"sm\": \"%d%d\", \"total_bytes\": %zu, \"cuda\": %d}\n", count, name, major,
	       minor, total, version);
}

int main(int argc, char **argv)
{
	unsigned long long wanted = argc == 2 ? strtoull(argv[1], NULL, 10) : 0, taken = 0;
	int gpu = 0, count = 0;
	void *context = NULL;

	setvbuf(stdout, NULL, _IOLBF, 0); /* a line that was written is read even if the next moment is the last */
	if (!wanted) {
		fprintf(stderr, "gpu-trial: wanted how many bytes to take, got %s\n", argc == 2 ? argv[1] : "nothing");
		return 2;
	}
	driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!driver) {
		printf("{\"stage\": \"failed\", \"call\": \"dlopen\", \"code\": -1}\n");
		fprintf(stderr, "gpu-trial: %s\n", dlerror());
		return NO_DRIVER;
	}
	result (*init)(unsigned) = function("cuInit");
	result (*get_count)(int *) = function("cuDeviceGetCount");
	result (*get_device)(int *, int) = function("cuDeviceGet");
	result (*retain)(void **, int) = function("cuDevicePrimaryCtxRetain");
	result (*use)(void *) = function("cuCtxSetCurrent");
	result (*take)(pointer *, size_t) = function("cuMemAlloc_v2");
	result (*fill)(pointer, unsigned char, size_t) = function("cuMemsetD8_v2");
	result (*wait)(void) = function("cuCtxSynchronize");

	check("cuInit", init(0), 0);
	check("cuDeviceGetCount", get_count(&count), 0);
	check("cuDeviceGet", get_device(&gpu, 0), 0);
	describe(gpu, count);
	check("cuDevicePrimaryCtxRetain", retain(&context, gpu), 0);
	check("cuCtxSetCurrent", use(context), 0);
	printf("{\"stage\": \"context\", \"taken_bytes\": 0, \"charged_bytes\": %lld}\n", charged());
	while (taken < wanted) {
		pointer memory = 0;

		check("cuMemAlloc", take(&memory, STEP_BYTES), taken);
		check("cuMemsetD8", fill(memory, 1, STEP_BYTES), taken);
		check("cuCtxSynchronize", wait(), taken);
		taken += STEP_BYTES;
		printf("{\"stage\": \"taken\", \"taken_bytes\": %llu, \"charged_bytes\": %lld}\n", taken, charged());
	}
	printf("{\"stage\": \"done\", \"taken_bytes\": %llu, \"charged_bytes\": %lld}\n", taken, charged());
	return 0;
}
