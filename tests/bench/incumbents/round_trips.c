/*
 * Times single transfers of a bulk-only disk that no driver is bound to: round-trips DEVICE COUNT
 *
 * Prints three medians in seconds: of a control transfer (GET MAX LUN, Bulk-Only Transport 1.0 section 3.2), of a bulk
 * OUT (the wrapper of TEST UNIT READY, section 5.1) and of a bulk IN (the status of that, section 5.2).
 */
#include <fcntl.h>
#include <linux/usbdevice_fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>

enum { MOST = 10000, WRAPPER = 31, STATUS = 13, TIMEOUT_MS = 10000 };
/* The endpoints of QEMU's usb-storage. */
enum { BULK_IN = 0x81, BULK_OUT = 0x02 };

static double times[3][MOST];

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double timed(int device, unsigned long request, void *transfer, int length)
{
	double start = now();

	if (ioctl(device, request, transfer) != length) {
		perror("a transfer");
		exit(1);
	}
	return now() - start;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	static unsigned char lun[1], status[STATUS], wrapper[WRAPPER] = "USBC";
	struct usbdevfs_ctrltransfer control = { 0xa1, 0xfe, 0, 0, sizeof(lun), TIMEOUT_MS, lun };
	struct usbdevfs_bulktransfer out = { BULK_OUT, WRAPPER, TIMEOUT_MS, wrapper };
	struct usbdevfs_bulktransfer in = { BULK_IN, STATUS, TIMEOUT_MS, status };
	int count = argc == 3 ? atoi(argv[2]) : 0;
	int device = count > 0 ? open(argv[1], O_RDWR) : -1;
	unsigned int interface = 0;

	if (count > MOST || device < 0 || ioctl(device, USBDEVFS_CLAIMINTERFACE, &interface)) {
		perror("round-trips DEVICE COUNT");
		return 1;
	}
	wrapper[14] = 6; /* the length of the command, which is all zeroes */
	for (int i = 0; i < count; i++) {
		times[0][i] = timed(device, USBDEVFS_CONTROL, &control, sizeof(lun));
		times[1][i] = timed(device, USBDEVFS_BULK, &out, WRAPPER);
		times[2][i] = timed(device, USBDEVFS_BULK, &in, STATUS);
	}
	for (int kind = 0; kind < 3; kind++) {
		qsort(times[kind], (size_t)count, sizeof(double), compare);
		printf("%.9f\n", times[kind][count / 2]);
	}
	return 0;
}
