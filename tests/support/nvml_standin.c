/* A stand-in for the NVIDIA driver's libnvidia-ml.so.1: the few calls that the platform makes, answered
 * from a scenario file. It is compiled when the tests run, and the real nvidia-ml-py is loaded on it, so
 * that structures, sizes and return codes take the same way through ctypes as on a machine with a GPU.
 *
 * NVML_STANDIN names the file; it is read again at every nvmlDeviceGetCount_v2. One line a thing:
 *
 *   gpu NAME UUID TOTAL USED UTIL MILLIWATTS CELSIUS MIG    (_ in a name stands for a blank; -1: not supported)
 *   mig GPU UUID TOTAL USED
 *   process GPU MIG KIND PID MEMORY UTIL                    (MIG -1: none; KIND compute, graphics or mps;
 *                                                            MEMORY -1: not told; UTIL -1: no sample)
 *   fail GPU CALL CODE                                      (GPU -1: a call without a device; CALL *: every one)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned int uint;
typedef unsigned long long u64;
enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, DRIVER_NOT_LOADED = 9 };
enum { MOST = 64, NAME = 96 };

typedef struct { int gpu, mig; char name[NAME], uuid[NAME]; u64 total, used; int util, milliwatts, celsius, divided; } Device;
typedef struct { int gpu, mig, pid, util; char kind[16]; long long memory; } Process;
typedef struct { int gpu, code; char call[NAME]; } Failure;
typedef struct { uint pid; u64 memory; uint gpu_instance, compute_instance; } ProcessInfo;
typedef struct { uint pid; u64 time; uint sm, memory, encoder, decoder; } ProcessShare;

typedef struct { u64 total, free, used; } Memory;
typedef struct { uint version; u64 total, reserved, free, used; } Memory2;
typedef struct { uint gpu, memory; } Rates;

static Device gpus[MOST], migs[MOST];
static Process processes[1024];
static Failure failures[MOST];
static int gpu_count, mig_count, process_count, failure_count;

static void load(void) {
    const char *path = getenv("NVML_STANDIN");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[512];
    gpu_count = mig_count = process_count = failure_count = 0;
    while (file && fgets(line, sizeof line, file)) {
        Device d = {0};
        Process p = {0};
        Failure f = {0};
        d.mig = -1;
        if (sscanf(line, "gpu %95s %95s %llu %llu %d %d %d %d", d.name, d.uuid, &d.total, &d.used, &d.util, &d.milliwatts,
                   &d.celsius, &d.divided) == 8) {
            d.gpu = gpu_count;
            for (char *c = d.name; *c; c++) if (*c == '_') *c = ' ';
            gpus[gpu_count++] = d;
        } else if (sscanf(line, "mig %d %95s %llu %llu", &d.gpu, d.uuid, &d.total, &d.used) == 4) {
            d.mig = 0;
            for (int i = 0; i < mig_count; i++) d.mig += migs[i].gpu == d.gpu;
            snprintf(d.name, NAME, "%.60s MIG %d", gpus[d.gpu].name, d.mig);
            d.util = d.milliwatts = d.celsius = -1;
            migs[mig_count++] = d;
        } else if (sscanf(line, "process %d %d %15s %d %lld %d", &p.gpu, &p.mig, p.kind, &p.pid, &p.memory, &p.util) == 6) {
            processes[process_count++] = p;
        } else if (sscanf(line, "fail %d %95s %d", &f.gpu, f.call, &f.code) == 3) {
            failures[failure_count++] = f;
        }
    }
    if (file) fclose(file);
}

/* A part of a GPU fails only with the whole of it: what is refused of the whole may be told of a part. */
static int fault(int gpu, int is_part, const char *call) {
    for (int i = 0; i < failure_count; i++)
        if (failures[i].gpu == gpu && (!strcmp(failures[i].call, "*") || (!is_part && !strcmp(failures[i].call, call))))
            return failures[i].code;
    return OK;
}

#define CHECK(device) do { int code = fault((device)->gpu, (device)->mig >= 0, __func__); if (code) return code; } while (0)

int nvmlInitWithFlags(uint flags) { (void)flags; load(); return fault(-1, 0, __func__); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { return code == 999 ? "Unknown Error" : "an error of the stand-in"; }

int nvmlDeviceGetCount_v2(uint *count) {
    load();
    *count = gpu_count;
    return fault(-1, 0, __func__);
}

int nvmlDeviceGetHandleByIndex_v2(uint index, Device **device) {
    if (index >= (uint)gpu_count) return INVALID;
    *device = &gpus[index];
    CHECK(*device);
    return OK;
}

int nvmlDeviceGetName(Device *d, char *name, uint size) { CHECK(d); snprintf(name, size, "%s", d->name); return OK; }
int nvmlDeviceGetUUID(Device *d, char *uuid, uint size) { CHECK(d); snprintf(uuid, size, "%s", d->uuid); return OK; }

int nvmlDeviceGetMemoryInfo(Device *d, Memory *memory) {
    CHECK(d);
    memory->total = d->total;
    memory->used = d->used;
    memory->free = d->total - d->used;
    return OK;
}

int nvmlDeviceGetMemoryInfo_v2(Device *d, Memory2 *memory) {
    CHECK(d);
    if (memory->version != 0x02000028) return 25;
    memory->total = d->total;
    memory->reserved = 0;
    memory->used = d->used;
    memory->free = d->total - d->used;
    return OK;
}

int nvmlDeviceGetUtilizationRates(Device *d, Rates *rates) {
    CHECK(d);
    if (d->util < 0 || d->divided) return NOT_SUPPORTED;
    rates->gpu = d->util;
    rates->memory = 0;
    return OK;
}

int nvmlDeviceGetPowerUsage(Device *d, uint *milliwatts) {
    CHECK(d);
    if (d->milliwatts < 0) return NOT_SUPPORTED;
    *milliwatts = d->milliwatts;
    return OK;
}

int nvmlDeviceGetTemperature(Device *d, int sensor, uint *celsius) {
    CHECK(d);
    if (d->celsius < 0 || sensor != 0) return NOT_SUPPORTED;
    *celsius = d->celsius;
    return OK;
}

int nvmlDeviceGetMigMode(Device *d, uint *current, uint *pending) {
    CHECK(d);
    *current = *pending = d->divided;
    return OK;
}

int nvmlDeviceGetMaxMigDeviceCount(Device *d, uint *count) { CHECK(d); *count = 7; return OK; }

int nvmlDeviceGetMigDeviceHandleByIndex(Device *d, uint index, Device **mig) {
    CHECK(d);
    for (int i = 0; i < mig_count; i++)
        if (migs[i].gpu == d->gpu && migs[i].mig == (int)index) { *mig = &migs[i]; return OK; }
    return NOT_FOUND;
}

static int running(Device *d, const char *kind, uint *count, ProcessInfo *infos) {
    uint room = *count, found = 0;
    for (int i = 0; i < process_count; i++) {
        Process *p = &processes[i];
        if (p->gpu != d->gpu || strcmp(p->kind, kind) || (d->mig >= 0 && p->mig != d->mig)) continue;
        if (infos && found < room)
            infos[found] = (ProcessInfo){p->pid, p->memory < 0 ? ~0ULL : (u64)p->memory, p->mig < 0 ? ~0U : (uint)p->mig, ~0U};
        found++;
    }
    *count = found;
    return found > (infos ? room : 0) ? TOO_SMALL : OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Device *d, uint *n, ProcessInfo *i) { CHECK(d); return running(d, "compute", n, i); }
int nvmlDeviceGetComputeRunningProcesses_v2(Device *d, uint *n, ProcessInfo *i) { CHECK(d); return running(d, "compute", n, i); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(Device *d, uint *n, ProcessInfo *i) { CHECK(d); return running(d, "graphics", n, i); }
int nvmlDeviceGetMPSComputeRunningProcesses_v3(Device *d, uint *n, ProcessInfo *i) { CHECK(d); return running(d, "mps", n, i); }

int nvmlDeviceGetProcessUtilization(Device *d, ProcessShare *shares, uint *count, u64 since) {
    CHECK(d);
    if (d->divided) return NOT_SUPPORTED;
    uint room = *count, found = 0;
    for (int i = 0; i < process_count; i++) {
        Process *p = &processes[i];
        if (p->gpu != d->gpu || p->util < 0) continue;
        if (shares && found < room) shares[found] = (ProcessShare){p->pid, since + 1, p->util, 0, 0, 0};
        found++;
    }
    *count = found;
    if (!found) return NOT_FOUND; /* an idle GPU */
    return found > (shares ? room : 0) ? TOO_SMALL : OK;
}
