/*
 * What a TCP connection from the desk carries, with nothing in it: raw-tcp ADDRESS PORT COUNT MEBIBYTES
 *
 * Sends 64 bytes and waits for them, COUNT times; sends so many MEBIBYTES and waits for one byte; takes as many. Prints
 * three times in seconds: the median of the first, then of one mebibyte sent and of one taken.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 10000, PING = 64, CHUNK = 65536, MEBIBYTE = 1 << 20 };

static double times[MOST];
static char buffer[CHUNK];

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Moves so many bytes, or ends the program. */
static void move(ssize_t (*step)(int, size_t), int connection, long bytes)
{
	while (bytes > 0) {
		ssize_t moved = step(connection, bytes < CHUNK ? (size_t)bytes : CHUNK);

		if (moved <= 0) {
			perror("the connection");
			exit(1);
		}
		bytes -= moved;
	}
}

static ssize_t give(int connection, size_t length)
{
	return write(connection, buffer, length);
}

static ssize_t take(int connection, size_t length)
{
	return read(connection, buffer, length);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	int count = argc == 5 ? atoi(argv[3]) : 0, mebibytes = argc == 5 ? atoi(argv[4]) : 0;
	int connection = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
	double start;

	if (count < 1 || count > MOST || mebibytes < 1 || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) {
		fprintf(stderr, "raw-tcp ADDRESS PORT COUNT MEBIBYTES\n");
		return 1;
	}
	address.sin_port = htons((unsigned short)atoi(argv[2]));
	if (setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes)) ||
	    connect(connection, (struct sockaddr *)&address, sizeof(address))) {
		perror("connecting");
		return 1;
	}
	for (int i = 0; i < count; i++) {
		start = now();
		move(give, connection, PING);
		move(take, connection, PING);
		times[i] = now() - start;
	}
	qsort(times, (size_t)count, sizeof(double), compare);
	printf("%.9f\n", times[count / 2]);
	start = now();
	move(give, connection, (long)mebibytes * MEBIBYTE);
	move(take, connection, 1);
	printf("%.9f\n", (now() - start) / mebibytes);
	start = now();
	move(take, connection, (long)mebibytes * MEBIBYTE);
	printf("%.9f\n", (now() - start) / mebibytes);
	return 0;
}
