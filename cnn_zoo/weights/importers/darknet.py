"""Darknet's `.weights` files: the original classifiers DarkNet-19 and DarkNet-53.

Such a file is a header and then all numbers of the net in the order of its layers, without a word on shapes: its length tells which net it is.
A convolution is written as biases (or, with BatchNorm: shifts, scales, means, variances) and then its kernel (output, input, height, width);
darknet's src/parser.c, `load_weights_upto` and `load_convolutional_weights`. The classes of darknet's ImageNet classifiers are those of its
data/imagenet.labels.list, which are in the order of the ILSVRC 2012 development kit; here they come out in the order of their WordNet identifiers,
which everyone else uses. Files that end before the classifier (`darknet53.conv.74`, `darknet19_448.conv.23`) fit backbones.
"""

import numpy as np

from cnn_zoo.errors import WeightsError
from cnn_zoo.registry import get_spec

NETS = ("darknet19", "darknet53")


def convolutions(net: str) -> list[tuple[str, int, int, int]]:
    """`(name, kernel, inputs, outputs)` of each convolution in the order of the file; the last is the classifier."""
    found, channels = [], 3

    def add(name, kernel, outputs):
        nonlocal channels
        found.append((name, kernel, channels, outputs))
        channels = outputs

    depths = get_spec(net).row.depths
    if net == "darknet19":
        for stage, depth in enumerate(depths):
            for i in range(depth):
                name = f"s{stage}_{i + 1}" if stage else "stem"
                add(name, *((1, 16 * 2**stage) if i % 2 else (3, 32 * 2**stage)))
    else:
        add("stem", 3, 32)
        for stage, depth in enumerate(depths, 1):
            add(f"s{stage}_down", 3, 32 * 2**stage)
            for block in range(1, depth + 1):
                add(f"s{stage}_b{block}_1", 1, 16 * 2**stage)
                add(f"s{stage}_b{block}_2", 3, 32 * 2**stage)
    add("logits", 1, get_spec(net).classes)
    return found


def count(kernel, inputs, outputs, norm):
    return outputs * (inputs * kernel**2 + (4 if norm else 1))


def read(path) -> dict[str, dict]:
    """Our layers -> their arrays, under PyTorch's names.

    Raises:
        WeightsError: The length is not that of DarkNet-19 or DarkNet-53.
    """
    data = path.read_bytes()
    header = np.frombuffer(data[:12], "<i4") if len(data) >= 12 else np.zeros(3, int)
    major, minor = int(header[0]), int(header[1])
    start = 20 if major * 10 + minor >= 2 else 16  # since version 0.2 the number of images seen has 64 bits
    fits = {}
    for net in NETS:
        layers = convolutions(net)
        trunk = sum(count(*shape, norm=True) for _, *shape in layers[:-1])
        fits[trunk + count(*layers[-1][1:], norm=False)] = layers
        fits[trunk] = layers[:-1]
    numbers, rest = divmod(len(data) - start, 4)
    if rest or numbers not in fits or not (0 <= major < 1000 and 0 <= minor < 1000):
        lengths = ", ".join(f"{start + 4 * length:,}" for length in sorted(fits))
        raise WeightsError(
            f"{str(path)!r} has {len(data):,} bytes and is neither DarkNet-19 nor DarkNet-53 of 1000 classes ({lengths} bytes): "
            "it is truncated or of another net; get it again from pjreddie.com/darknet/imagenet"
        )
    values, theirs, at = np.frombuffer(data, "<f4", offset=start), {}, 0

    def take(*shape):
        nonlocal at
        at += int(np.prod(shape))
        return values[at - int(np.prod(shape)) : at].reshape(shape)

    for name, kernel, inputs, outputs in fits[numbers]:
        if name == "logits":
            bias, weight = take(outputs), take(outputs, inputs, kernel, kernel)
            theirs[name] = {"bias": bias[ORDER], "weight": weight[ORDER]}
        else:
            norm = {variable: take(outputs) for variable in ("bias", "weight", "running_mean", "running_var")}
            theirs[f"{name}_bn"] = norm
            theirs[f"{name}_conv"] = {"weight": take(outputs, inputs, kernel, kernel)}
    return theirs


def twins(net: str, theirs: list[str]) -> dict[str, tuple]:
    """Each layer is its own twin: `read` has named them as ours.

    Raises:
        WeightsError: The net is not one of darknet's.
    """
    if net not in NETS:
        raise WeightsError(f"Darknet's weights are read for {' and '.join(NETS)}, not for {net!r}")
    return {name: (name,) for name in theirs}


# Place in the file of the class that is number 0, 1, ... among the sorted WordNet identifiers: from the first 1,000 lines of
# data/imagenet.labels.list of github.com/pjreddie/darknet, commit 3cf8088.
ORDER = np.array(
    """
448 449 441 442 443 444 445 382 383 384 385 386 387 388 389 390 391 392 393 394 395 396 397 398 399 493 494 495 496
497 498 499 500 457 458 459 460 461 462 463 464 465 466 467 468 469 470 471 472 474 475 473 476 477 478 479 480 481
482 483 484 485 486 487 488 489 490 491 492 600 601 602 603 604 605 606 607 608 609 610 400 401 402 403 404 405 406
407 408 409 410 411 412 413 414 415 416 417 418 419 420 213 214 216 215 212 217 646 647 648 649 650 651 652 653 654
655 225 612 613 614 615 616 617 618 619 611 421 422 423 424 426 425 427 428 429 437 430 431 432 433 434 435 436 438
439 440 5 21 192 13 172 98 86 68 115 197 42 88 199 97 160 131 31 179 41 17 206 180 104 76 188 19 203 62 30 65 20 24 44
169 118 209 106 125 87 144 58 159 151 71 32 90 3 26 112 122 35 155 108 157 130 25 70 55 145 143 124 175 138 133 89 1
191 153 149 93 4 18 190 195 116 140 67 92 50 207 183 96 28 170 123 127 46 63 210 111 186 113 85 114 78 129 139 109 81
16 176 148 14 2 40 126 83 142 132 59 171 178 117 167 147 69 196 49 105 48 150 45 204 101 27 57 154 135 201 33 61 0 158
66 173 54 9 94 7 10 200 84 152 29 189 75 205 60 162 102 208 73 34 620 621 622 623 624 625 626 627 628 629 223 630 631
632 633 634 635 636 637 638 639 640 641 642 643 644 645 224 656 657 187 128 163 156 12 52 182 194 100 38 79 146 77 119
166 107 161 164 80 51 8 64 56 11 120 185 47 22 181 39 211 43 15 177 37 82 103 95 184 121 72 134 136 137 202 53 99 174
141 165 36 110 91 198 74 193 23 6 168 446 450 447 451 452 455 456 453 454 546 852 895 222 344 245 229 231 676 264 263
521 687 844 751 539 846 703 766 232 906 966 340 717 915 306 704 682 517 904 257 806 907 295 352 784 908 883 265 732
990 848 776 810 932 940 253 984 834 532 838 688 251 939 804 299 705 778 537 816 715 871 718 948 850 819 579 832 886
706 266 672 590 538 238 376 835 575 567 890 748 562 547 889 928 700 240 986 341 913 826 720 901 381 761 302 334 300
800 689 694 369 712 796 978 760 995 673 697 582 542 707 242 267 375 346 909 880 296 544 777 897 297 669 755 855 864
719 312 549 958 965 522 528 314 820 666 578 714 252 896 971 833 335 798 999 661 511 345 261 315 878 659 807 795 304
234 278 918 994 355 308 783 260 711 933 298 255 347 670 756 279 970 566 954 274 791 275 235 336 910 226 683 724 702
516 580 894 248 374 839 504 550 749 572 349 343 553 368 786 695 729 561 801 923 292 524 979 658 591 747 268 960 962
293 559 769 772 581 917 891 813 227 373 987 370 686 237 545 269 243 866 972 893 507 535 696 531 817 916 781 976 762
337 338 780 983 597 921 945 301 716 508 660 865 874 919 879 270 250 870 828 289 271 763 685 868 276 823 853 690 851
259 254 727 510 598 283 587 584 594 754 914 551 698 353 350 519 512 332 869 936 294 505 920 825 563 583 503 758 684
351 876 941 993 305 526 256 678 842 731 841 849 882 782 788 574 925 721 280 595 930 900 887 840 564 244 982 371 692
963 730 380 377 856 922 284 854 313 787 837 565 372 768 555 701 541 533 571 845 938 861 975 272 859 570 862 536 926
285 569 964 667 577 693 218 540 309 662 996 875 518 759 752 585 951 750 937 354 808 520 961 220 728 509 586 378 588
558 799 708 831 949 258 379 867 746 589 775 942 548 725 556 506 287 277 959 221 985 576 924 821 857 514 233 675 236
599 774 273 592 803 262 679 339 529 997 723 527 515 513 286 956 310 691 246 793 525 573 534 809 680 827 836 944 568
560 530 303 249 977 674 785 943 969 988 902 757 554 307 779 663 709 311 593 699 281 710 288 282 765 824 290 241 596
677 881 348 764 726 543 219 291 333 665 873 989 968 557 789 681 342 935 664 523 927 316 230 905 668 957 818 794 771
501 898 911 903 934 830 502 671 950 814 722 247 239 713 552 929 790 931 860 773 802 753 812 843 770 792 973 967 872
767 974 992 884 733 735 736 737 738 739 740 741 742 743 734 744 745 317 228 318 319 320 321 322 323 324 325 815 998
952 863 805 947 829 899 797 946 858 822 360 991 358 364 367 365 362 363 366 359 361 953 847 981 329 356 357 330 326
327 331 885 912 955 892 877 811 980 328 888
""".split(),
    dtype=np.int64,
)
